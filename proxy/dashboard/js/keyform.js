"use strict";
// The form of a key: the reader's own time zone, addresses as chips that the
// server checks while they are typed, and buttons that need no round trip.
(() => {
  const form = document.querySelector(".key-form");
  if (!form) return;
  const all = (selector, within = form) => [...within.querySelectorAll(selector)];
  const faults = document.getElementById("faults");
  if (faults) faults.focus();
  // What works here needs no submit button, so Enter sends the form itself.
  for (const button of all("button[name=do]")) button.type = "button";
  form.querySelector("[data-default]").remove();

  // An error has said what it had to once its field is changed.
  form.addEventListener("input", (event) => {
    const described = event.target.getAttribute("aria-describedby") || "";
    if (!event.target.hasAttribute("aria-invalid")) return;
    for (const id of described.split(" ")) if (id.endsWith("-error")) document.getElementById(id).replaceChildren();
    event.target.removeAttribute("aria-invalid");
  });

  // Expiry: what is sent stays in UTC, what is seen is in the reader's zone.
  const expires = document.getElementById("expires");
  const date = document.getElementById("expires_date");
  const time = document.getElementById("expires_time");
  const says = document.getElementById("expires-says");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
  const two = (n) => String(n).padStart(2, "0");
  const sent = [date, time].map((input) => {
    const hidden = document.createElement("input");
    hidden.type = "hidden";
    hidden.name = input.name;
    hidden.value = input.value;
    input.removeAttribute("name");
    input.after(hidden);
    return hidden;
  });
  const utc = () => new Date(sent[0].value + "T" + sent[1].value + "Z");
  const clock = (h, m, s) => two(h) + ":" + two(m) + (s ? ":" + two(s) : "");
  const long = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
  const away = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  const explain = () => {
    const at = utc();
    if (Number.isNaN(at.getTime())) {
      says.textContent = "Choose a date and a time, in your time zone (" + zone + ").";
      return;
    }
    const hours = (at - Date.now()) / 3600e3;
    const ahead = Math.abs(hours) < 48 ? away.format(Math.round(hours), "hour") : away.format(Math.round(hours / 24), "day");
    says.textContent = long.format(at) + " in your time zone (" + zone + "), " + at.toISOString().replace("T", " ").replace(/(:00)?\.000Z$/, "") + " in UTC, " + ahead + ".";
  };
  const showLocal = (at) => {
    if (Number.isNaN(at.getTime())) return;
    date.value = String(at.getFullYear()).padStart(4, "0") + "-" + two(at.getMonth() + 1) + "-" + two(at.getDate());
    time.value = clock(at.getHours(), at.getMinutes(), at.getSeconds());
  };
  const choose = (at) => {
    const valid = !Number.isNaN(at.getTime());
    sent[0].value = valid ? at.toISOString().replace(/T.*$/, "") : "";
    sent[1].value = valid ? clock(at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()) : "";
    explain();
  };
  for (const label of all(".zone")) label.textContent = "(your time)";
  showLocal(utc());
  explain();
  // Only what somebody changes is read back: an hour that comes twice stays as it is.
  for (const input of [date, time]) input.addEventListener("input", () => choose(new Date(date.value + "T" + time.value)));
  for (const button of all("[data-days]")) {
    button.addEventListener("click", () => {
      const at = new Date(Math.ceil(Date.now() / 60e3) * 60e3);
      if (button.dataset.days === "365") at.setFullYear(at.getFullYear() + 1);
      else at.setDate(at.getDate() + Number(button.dataset.days));
      expires.checked = true;
      showLocal(at);
      choose(at);
    });
  }

  // Addresses: the server's rule says what each is, and who is locked out.
  const box = form.querySelector("[data-addresses]");
  const plain = document.getElementById("allowed_ips");
  const entry = document.getElementById("address-entry");
  const chips = box.querySelector(".address-chips");
  const status = box.querySelector("[data-says]");
  const hint = document.getElementById("entry-says");
  const locked = box.querySelector("[data-locked-out]");
  const errors = document.getElementById("addresses-error");
  const split = (text) => text.split(/[\s,;]+/).filter(Boolean);
  const ask = async (list) => {
    const answer = await fetch(box.dataset.check, { method: "POST", redirect: "error", body: new URLSearchParams({ addresses: list.join("\n") }) });
    if (!answer.ok) throw new Error("not checked");
    return answer.json();
  };
  let entries = split(plain.value).map((given) => ({ given, address: "", error: "" }));
  let asked = 0;
  const draw = () => {
    plain.value = entries.map((e) => e.address || e.given).join("\n");
    chips.replaceChildren(...entries.map((e, i) => {
      const chip = document.createElement("li");
      const text = document.createElement("span");
      const remove = document.createElement("button");
      text.textContent = e.address || e.given;
      chip.className = e.error ? "chip bad" : "chip";
      if (e.error) text.title = e.error;
      remove.type = "button";
      remove.className = "chip-remove";
      remove.textContent = "×";
      remove.setAttribute("aria-label", "Remove " + text.textContent);
      remove.addEventListener("click", () => {
        entries.splice(i, 1);
        draw();
        status.textContent = text.textContent + " was removed.";
        (chips.querySelectorAll("button")[Math.min(i, entries.length - 1)] || entry).focus();
        check();
      });
      chip.append(text, remove);
      return chip;
    }));
  };
  const fault = (texts) => {
    errors.replaceChildren(...texts.map((text) => {
      const p = document.createElement("p");
      p.className = "error";
      p.textContent = text;
      return p;
    }));
    if (texts.length) entry.setAttribute("aria-invalid", "true");
    else entry.removeAttribute("aria-invalid");
  };
  const check = async () => {
    const turn = ++asked;
    try {
      const said = await ask(entries.map((e) => e.given));
      if (turn !== asked) return;
      const seen = new Set();
      if (said.addresses.length === entries.length) {
        entries = said.addresses.filter((e) => !seen.has(e.address || e.given) && seen.add(e.address || e.given));
      }
      fault([said.error, ...entries.map((e) => e.error)].filter(Boolean));
      if (locked) locked.hidden = !said.locked_out;
      draw();
    } catch {
      if (turn === asked) fault(["The addresses could not be checked now. They are checked when you send the form."]);
    }
  };
  const add = (text) => {
    const list = split(text);
    if (list.length === 0) return;
    entries.push(...list.map((given) => ({ given, address: "", error: "" })));
    entry.value = "";
    hint.textContent = "";
    typed++;
    draw();
    status.textContent = list.join(", ") + (list.length === 1 ? " was added." : " were added.");
    check();
  };
  let typed = 0;
  entry.addEventListener("input", () => {
    if (/[\s,;]$/.test(entry.value)) {
      add(entry.value);
      return;
    }
    const turn = ++typed;
    const text = entry.value.trim();
    hint.textContent = "";
    if (!text) return;
    setTimeout(async () => {
      if (turn !== typed) return;
      try {
        const said = (await ask([text])).addresses[0];
        if (turn !== typed || !said) return;
        hint.className = said.error ? "hint bad" : "hint good";
        hint.textContent = said.error || (said.address === text ? "✓ Press Enter to add it." : "✓ It is stored as " + said.address + ". Press Enter to add it.");
      } catch { /* it is checked again when it is added */ }
    }, 350);
  });
  entry.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (split(text).length < 2) return;
    event.preventDefault();
    add(entry.value + text);
  });
  // Enter adds what stands here, and never sends the form.
  entry.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (entry.value.trim()) add(entry.value);
  });
  entry.addEventListener("keypress", (event) => { if (event.key === "Enter") event.preventDefault(); });
  box.querySelector("[data-add]").addEventListener("click", () => { add(entry.value); entry.focus(); });
  const own = box.querySelector("[data-add-own]");
  if (own) own.addEventListener("click", () => add(box.dataset.client));
  // What was typed and not yet added is sent too.
  form.addEventListener("submit", () => add(entry.value), true);
  for (const part of all("[data-plain]", box)) part.hidden = true;
  for (const part of all("[data-rich]", box)) part.hidden = false;
  for (const link of document.querySelectorAll('#faults a[href="#allowed_ips"]')) link.setAttribute("href", "#address-entry");
  draw();
  if (entries.length) check();

  // Subaccounts: a search, and what the choice means.
  const subaccounts = form.querySelector("[data-subaccounts]");
  const meaning = document.getElementById("subaccounts-says");
  const search = document.getElementById("subaccount-search");
  subaccounts.addEventListener("change", () => {
    const n = all("input:checked", subaccounts).length;
    meaning.textContent = n === 0
      ? "None ticked: this key may use all subaccounts of your account, also those added later."
      : n + " of " + meaning.dataset.total + " ticked: this key may use these, and no others.";
  });
  if (search) {
    search.closest("[data-search]").hidden = false;
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      let found = 0;
      for (const item of all(".choices li", subaccounts)) {
        item.hidden = !item.textContent.toLowerCase().includes(wanted);
        if (!item.hidden) found++;
      }
      subaccounts.querySelector("[data-found]").textContent = found + " of " + meaning.dataset.total + " subaccounts are shown.";
    });
    search.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
  }

  // Permissions, across products.
  const grants = form.querySelector("[data-grants]");
  const count = grants.querySelector("[data-says]");
  const boxes = all("input[name=permissions]", grants);
  const tell = (what) => { count.textContent = what + boxes.filter((b) => b.checked).length + " of " + boxes.length + " permissions ticked."; };
  for (const button of all("[data-all]", grants)) {
    button.addEventListener("click", () => {
      for (const b of boxes) if (b.dataset.action === button.dataset.all && b.dataset.lost === undefined) b.checked = true;
      tell("All products: " + button.dataset.all + ". ");
    });
  }
  grants.querySelector("[data-clear]").addEventListener("click", () => {
    for (const b of boxes) b.checked = false;
    tell("");
  });
  grants.addEventListener("change", () => tell(""));
  tell("");
})();
