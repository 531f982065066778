// Photos or the live camera (ARIA Authoring Practices, tabs).

const $ = (id) => document.getElementById(id);
const TABS = ["photos", "live"];

let onShow = () => {};

export function showTab(name) {
  for (const each of TABS) {
    const chosen = each === name;
    $(`tab-${each}`).setAttribute("aria-selected", String(chosen));
    $(`tab-${each}`).tabIndex = chosen ? 0 : -1;
    $(each).hidden = !chosen;
  }
  onShow(name);
}

/** `shown(name)` is called with the tab that is turned to. */
export function connectTabs(shown) {
  onShow = shown;
  for (const name of TABS) {
    $(`tab-${name}`).onclick = () => showTab(name);
    $(`tab-${name}`).onkeydown = ({ key }) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (!step) return;
      const next = TABS[(TABS.indexOf(name) + step + TABS.length) % TABS.length];
      showTab(next);
      $(`tab-${next}`).focus();
    };
  }
}
