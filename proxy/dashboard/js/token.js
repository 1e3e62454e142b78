"use strict";
// The page with the token: copies it, asks before it is left without a copy,
// and leaves it nowhere. From here on a reload and the way back are the key's page.
(() => {
  const page = document.getElementById("token-page");
  if (!page) return;
  const keyPage = page.dataset.keyPage;
  history.replaceState(null, "", keyPage);

  const says = page.querySelector("[data-says]");
  const sure = page.querySelector("[data-sure] input");
  let kept = false;
  const keep = () => {
    kept = true;
    sure.checked = true;
  };
  const select = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  const copy = async (element) => {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      select(element); // without the clipboard's permission, or over http
      return document.execCommand("copy");
    }
  };
  for (const button of page.querySelectorAll("[data-copy]")) {
    const label = button.textContent;
    let shown = 0;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copy(document.getElementById(button.dataset.copy));
      if (done) keep();
      button.textContent = done ? "Copied ✓" : label;
      says.textContent = "";
      const turn = ++shown;
      // Said anew each time, so that it is read aloud each time.
      setTimeout(() => { says.textContent = done ? "Copied. You can leave this page now." : "It could not be copied. It is selected: press Ctrl+C or ⌘C, then tick “I have copied it”."; }, 50);
      setTimeout(() => { if (turn === shown) button.textContent = label; }, 3000);
    });
  }
  page.querySelector("[data-sure]").hidden = false;
  sure.addEventListener("change", () => { kept = sure.checked; });
  document.addEventListener("copy", () => {
    const token = document.getElementById("token").textContent;
    if (String(getSelection()).includes(token)) keep();
  });

  window.addEventListener("beforeunload", (event) => {
    if (!kept) event.preventDefault();
  });
  // A page that the browser keeps and shows again has no token.
  window.addEventListener("pagehide", () => {
    for (const secret of page.querySelectorAll("[data-secret]")) secret.textContent = "This is not shown again.";
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.replace(keyPage);
  });
})();
