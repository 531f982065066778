// The API key, where the service asks for one: kept for this tab's session, sent in headers, never in an address.

const NAME = "pix2dslr.key";
const $ = (id) => document.getElementById(id);
let asking = null;

function stored() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return ""; // storage is switched off: it is asked for again with each page
  }
}

let key = stored();

/** Headers that bring the key. */
export function keyHeaders() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Subprotocols that bring it with a WebSocket, which can set no header. */
export function keyProtocols() {
  if (!key) return [];
  const encoded = btoa(key).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return ["pix2dslr", `pix2dslr.key.${encoded}`];
}

/** Ask for a key; resolves once there is another one than `tried`. */
export function askForKey(tried = key) {
  if (key !== tried) return Promise.resolve();
  asking ??= new Promise((resolve) => {
    $("key-note").textContent = key ? "This key is not valid." : "";
    $("key-box").hidden = false;
    $("key").focus();
    $("key-box").onsubmit = (event) => {
      event.preventDefault();
      const typed = $("key").value.trim();
      if (!/^[\x21-\x7e]+$/.test(typed)) {
        $("key-note").textContent = "This is no key.";
        return;
      }
      key = typed;
      try {
        sessionStorage.setItem(NAME, key);
      } catch { /* kept for as long as the page is */ }
      $("key").value = "";
      $("key-box").hidden = true;
      asking = null;
      resolve();
    };
  });
  return asking;
}

/** The key as it is now, to be given to `askForKey` when it fails. */
export function keyNow() {
  return key;
}
