// Formulas: pymdownx.arithmatex leaves \(...\) and \[...\] in elements of class "arithmatex".
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const text = element.textContent.trim();
    katex.render(text.slice(2, -2), element, { displayMode: text.startsWith("\\["), throwOnError: false });
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;  // to be scrolled by keys
  }
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
});
