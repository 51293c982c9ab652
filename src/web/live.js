// Reads the page again every two seconds while it is looked at, and puts the new main in place of the old one.
"use strict";

const EVERY_MS = 2000;
const live = document.getElementById("live");

function says(text) {
  if (live.textContent !== text) live.textContent = text;
}

async function refresh() {
  if (document.hidden) return;
  try {
    const limit = AbortSignal.timeout(10000);
    const answer = await fetch(location.href, { cache: "no-store", signal: limit });
    if (!answer.ok && answer.status !== 404) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [before, after] = [document.querySelector("main"), page.querySelector("main")];
    // Whoever reads a table, marks text or stands on a link is not disturbed.
    const held = before.contains(document.activeElement) || String(getSelection()) !== "";
    if (!held && after && before.innerHTML !== after.innerHTML) {
      const scrolled = Array.from(before.querySelectorAll(".scroll"), (box) => box.scrollLeft);
      before.replaceWith(document.adoptNode(after));
      document.querySelectorAll("main .scroll").forEach((box, at) => { box.scrollLeft = scrolled[at] || 0; });
    }
    says(held ? "paused while you read" : "live");
  } catch {
    says("the operator does not answer");
  }
}

async function again() {
  await refresh();
  setTimeout(again, EVERY_MS);
}

setTimeout(again, EVERY_MS);
