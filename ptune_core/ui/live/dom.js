// What the scripts of the page's own components share. It stands before each of them, and what it says holds in that
// one: `element` is the component's own.
const q = selector => element.querySelector(selector);

function make(tag, name = '', ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children.filter(child => child !== null && child !== undefined && child !== ''));
  return node;
}

// Untouched if it says so already: a screen reader reads out what is written anew.
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// The component may be taken out of the page and another one put in its place. What goes on by itself ends then: ears
// on window and document, and whatever asks again and again.
let wasThere = false;
function isGone() { wasThere ||= element.isConnected; return wasThere && !element.isConnected; }
function listen(target, name, heard) {
  const ear = event => { if (isGone()) target.removeEventListener(name, ear); else heard(event); };
  target.addEventListener(name, ear);
}
