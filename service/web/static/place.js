// What comes anew from the server leaves open what the reader has opened: the server does not know of it.

export function keepPlace() {
  window.htmx.registerExtension("keep-place", {
    htmx_before_morph_attr: (element, { attrName, newValue }) => !(element.localName === "details" && attrName === "open" && newValue === null),
  });
}
