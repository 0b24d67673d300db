// What the theme leaves undone for keyboards and screen readers: what scrolls can be reached, and what is alike has a name.
function reachable() {
  document.querySelectorAll("pre > code, .md-typeset__scrollwrap, .output, .output pre").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  document.querySelectorAll("nav.md-code__nav").forEach((bar, number) => {
    bar.setAttribute("aria-label", `Code block ${number + 1}`);
  });
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
new MutationObserver(reachable).observe(document.documentElement, { childList: true, subtree: true });
