// Exchanges the parts of the page that have changed, so that keyboard focus and a screen reader stay where they are.
// Without this script the page is whole, and has a link to load it anew.
"use strict";
(() => {
  const every = 5000;
  let paused = false;

  const button = document.createElement("button");
  button.type = "button";
  button.id = "pause";
  button.textContent = "Pause updates";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    if (!paused) update();
  });
  document.getElementById("refresh").after(" ", button);

  const status = document.createElement("p");
  status.setAttribute("role", "status");
  status.className = "unseen";
  document.querySelector("main").before(status);

  const glance = (root) => Array.from(root.querySelectorAll(".tile[data-say]"), (each) => each.dataset.say);
  let said = glance(document).join("; ");

  let asked = false;

  async function update() {
    if (asked) return;
    asked = true;
    try {
      await exchange();
    } finally {
      asked = false;
    }
  }

  async function exchange() {
    let text;
    try {
      const signal = AbortSignal.timeout(2 * every);
      const answer = await fetch("/", { cache: "no-store", credentials: "same-origin", signal });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (!answer.ok) throw new Error();
      text = await answer.text();
    } catch {
      const age = document.getElementById("age");
      age.textContent = "The dashboard does not answer; what is below is old.";
      age.className = "mark warn";
      return;
    }
    const fresh = new DOMParser().parseFromString(text, "text/html");
    document.title = fresh.title;
    document.getElementById("age").replaceWith(fresh.getElementById("age"));
    for (const part of document.querySelectorAll("main > section")) {
      const other = fresh.getElementById(part.id);
      const selected = !getSelection().isCollapsed && getSelection().containsNode(part, true);
      if (other && !selected && other.innerHTML !== part.innerHTML) part.replaceChildren(...other.childNodes);
    }
    const now = glance(document).join("; ");
    if (now !== said) {
      said = now;
      status.textContent = now || "All is well again";
    }
  }

  setInterval(() => {
    if (!paused && !document.hidden) update();
  }, every);
})();
