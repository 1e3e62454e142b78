"use strict";
// Events show the reader's own time (js/app.js), and UTC beside it.
for (const utc of document.querySelectorAll("[data-utc]")) utc.hidden = false;
