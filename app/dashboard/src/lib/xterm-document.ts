// xterm.js writes styles into the page: `<style>` elements and `style` attributes, which the policy
// forbids. While a terminal is there, the document gives out elements that do the same by ways that
// the policy allows: adopted style sheets, and the style object. (Its option `documentOverride` does
// not reach all of its parts.)

const original = document.createElement;

function sheetElement(): HTMLElement {
  const element = original.call(document, 'span');
  element.hidden = true;
  const sheet = new CSSStyleSheet();
  Object.defineProperty(element, 'textContent', {
    get: () => '',
    set(text: string) {
      sheet.replaceSync(text);
      if (!document.adoptedStyleSheets.includes(sheet))
        document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    },
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

function createElement(name: string, options?: ElementCreationOptions): HTMLElement {
  if (name === 'style') return sheetElement();
  const element = original.call(document, name, options);
  element.setAttribute = (key: string, value: string) => {
    if (key === 'style') element.style.cssText = value;
    else Element.prototype.setAttribute.call(element, key, value);
  };
  return element;
}

/** Returns how to end it. */
export function allowStyles(): () => void {
  document.createElement = createElement as typeof document.createElement;
  return () => {
    document.createElement = original;
  };
}
