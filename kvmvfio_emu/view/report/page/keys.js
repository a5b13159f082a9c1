// Keyboard, buttons, theme; and the start.
class Keys {
  constructor(app) {
    this.app = app;
    this.single = byId("single");
    const actions = {
      first: () => app.step(-Infinity), back: () => app.step(-1), forward: () => app.step(1), last: () => app.step(Infinity),
      "to-cause": () => app.jump("cause"), "to-effect": () => app.jump("effect"),
      theme: () => this.theme(), link: () => this.link(), help: () => byId("keys").showModal(),
    };
    for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
    this.moves = {
      ArrowLeft: actions.back, ArrowRight: actions.forward, ArrowUp: actions.back, ArrowDown: actions.forward,
      Home: actions.first, End: actions.last, PageUp: () => app.step(-10), PageDown: () => app.step(10),
    };
    this.letters = {
      j: actions.forward, k: actions.back, c: actions["to-cause"], e: actions["to-effect"],
      "[": () => app.jump("earlier"), "]": () => app.jump("later"),
      n: () => app.search.next(1), N: () => app.search.next(-1), "/": () => byId("find").focus(),
      s: () => this.other(), l: actions.link, t: actions.theme, "?": actions.help,
    };
    addEventListener("keydown", (event) => this.press(event));
    try { this.set(localStorage.getItem("kvmvfio-emu-theme") ?? "auto"); } catch { this.set("auto"); }
  }

  press(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target, tag = target.tagName;
    if (byId("keys").open || target.closest("dialog")) return;
    if (tag === "SELECT" || (tag === "INPUT" && target.type !== "range" && target.type !== "checkbox")) return;
    const inSteps = target.classList?.contains("steps");
    // The page scrolls by the arrows that go up and down, except where the steps have the focus; a slider has its own.
    const vertical = ["ArrowUp", "ArrowDown", "PageUp", "PageDown"].includes(event.key);
    let action = this.moves[event.key];
    if (action && ((vertical && !inSteps) || target.type === "range")) action = undefined;
    if (!action && this.single.checked) action = this.letters[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  other() {
    const { app } = this;
    if (app.panes.length < 2) return;
    const next = app.panes[1 - app.panes.indexOf(app.active)];
    app.activate(next);
    next.sequence.box.focus({ preventScroll: true });
  }

  link() {
    if (this.app.panes.length < 2) return;
    this.app.linked = !this.app.linked;
    this.app.setUp();
  }

  theme() {
    const next = { auto: "dark", dark: "light", light: "auto" }[this.now];
    this.set(next);
    try { localStorage.setItem("kvmvfio-emu-theme", next); } catch { /* a page from a file may keep nothing */ }
  }

  set(theme) {
    this.now = ["dark", "light"].includes(theme) ? theme : "auto";
    document.documentElement.dataset.theme = this.now;
    byId("theme-name").textContent = this.now;
  }
}

const data = JSON.parse(byId("trace").textContent);
const app = new App(data);
byId("keys").addEventListener("click", (event) => { if (event.target.closest("button")) byId("keys").close(); });
