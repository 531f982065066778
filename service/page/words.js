// What people read: problems in plain words, numbers in their own notation.

const WORDS = {
  "malformed-picture": ["This photo can't be read", "The file is damaged or was cut short. Try the original file."],
  "unsupported-format": ["This is not a photo that can be read", null],
  "picture-too-large": ["This photo is too large", null],
  "body-too-large": ["This file is too large", null],
  "side-too-long": ["The chosen file format can't hold this photo", null],
  "queue-full": ["The service is busy", null],
  "no-room": ["The service is busy", null],
  "rate-limited": ["You sent many photos", null],
  "too-many-at-once": ["You have much under way", null],
  "too-slow": ["This took too long to send", null],
  "not-ready": ["The service is not ready", null],
  "deadline-exceeded": ["This took too long", null],
  "inference-failed": ["Something went wrong while enhancing", null],
  "internal-error": ["Something went wrong on the server", null],
  "sizes-differ": ["The reference has another size", "Tick “Line it up first” to measure the part that both show."],
  "not-aligned": ["The reference can't be lined up", null],
  "too-small": ["This photo is too small to be measured", null],
  "unknown-camera": ["There is no such camera any more", "Reload the page."],
};

/** An error with words for people: `title`, `detail`, and where there is one the request's `id`. */
export class Problem extends Error {
  constructor(title, detail, { id = "", type = "", retryAfter = 0 } = {}) {
    super(`${title}. ${detail}`);
    Object.assign(this, { title, detail, id, type, retryAfter });
  }

  /** From the fields of problem+json (RFC 9457). */
  static from(fields, retryAfter = 0) {
    const type = String(fields.type ?? "").split(":").pop();
    const [title, detail] = WORDS[type] ?? [fields.title ?? "The service failed", null];
    return new Problem(title, detail ?? fields.detail ?? "", { id: fields.request_id ?? "", type, retryAfter });
  }

  /** From an answer of fetch that is not ok; one that holds no problem+json came from something between. */
  static async fromResponse(response) {
    const retryAfter = Number(response.headers.get("Retry-After")) || 0;
    if ((response.headers.get("Content-Type") ?? "").startsWith("application/problem+json")) {
      return Problem.from(await response.json(), retryAfter);
    }
    if (response.status === 413) {
      return new Problem(WORDS["body-too-large"][0], "Something between you and the service takes no file of this size.");
    }
    return new Problem("The service can't be reached", `Something between answered ${response.status}. Try again soon.`);
  }

  static unreachable() {
    return new Problem("The service can't be reached", "Check your connection, then try again.", { type: "unreachable" });
  }
}

export class Cancelled extends Error {}

/** Turn anything that was thrown into a Problem. */
export function problemOf(error) {
  if (error instanceof Problem) return error;
  if (error instanceof TypeError && /fetch|network|load failed/i.test(error.message)) return Problem.unreachable();
  console.error(error);
  return new Problem("Something went wrong on this page", "Reload it and try again.");
}

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const formats = new Map();

export function number(value, digits = 0) {
  if (!digits) return whole.format(value);
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return formats.get(digits).format(value);
}

export function percent(share) {
  return `${number(share * 100)}\u202f%`;
}

export function bytes(count) {
  return count < 1e6 ? `${number(count / 1e3)} kB` : `${number(count / 1e6, 1)} MB`;
}

export function seconds(value) {
  return value < 1 ? `${number(value * 1000)} ms` : `${number(value, value < 10 ? 2 : 1)} s`;
}
