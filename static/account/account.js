// Sends the token of the link when the person presses the button. A file of its own, because the page's policy allows no
// inline script.
"use strict";

const DONE = {
  "reset-password": "Your password is set. You can close this page and log in with it.",
  "verify-email": "Your address is confirmed. You can close this page.",
};
const NOT_GOOD =
  "This link is no longer good: it was used, it has expired, or your account has changed since. Ask for a new one.";
const INCOMPLETE = "This link is incomplete. Open it from the mail once more, or copy all of it.";

const form = document.querySelector("form");
const button = form.querySelector("button");
const outcome = document.querySelector("#outcome");
const password = form.querySelector("#password");
const route = form.dataset.route;

const token = location.hash.slice(1);
// The token stays neither in the history nor in the address that somebody may copy.
history.replaceState(null, "", location.pathname + location.search);

function show(sentences, isDone) {
  outcome.replaceChildren(
    ...sentences.map((sentence) => {
      const line = document.createElement("p");
      line.textContent = sentence;
      return line;
    }),
  );
  outcome.classList.toggle("done", isDone);
  password?.setAttribute("aria-invalid", String(!isDone && sentences.length > 0));
}

function end(sentence, isDone) {
  show([sentence], isDone);
  form.hidden = true;
  outcome.focus();
}

// "password must be longer than or equal to 8 characters" → "The password must have at least 8 characters."
const sentence = (rule) => `The ${rule.replace("be longer than or equal to", "have at least").replace(/\.$/, "")}.`;

async function send() {
  const body = password ? { token, password: password.value } : { token };
  const answer = await fetch(`../auth/${route}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    credentials: "omit",
    redirect: "error",
  });
  if (answer.ok) return end(DONE[route], true);
  if (answer.status === 401) return end(NOT_GOOD, false);
  if (answer.status === 409) return end("Another account has this address by now, so it cannot become yours.", false);
  if (answer.status === 429) return show(["Too many tries from your network. Wait a minute, then try again."], false);
  if (answer.status === 400 && password) {
    const { message } = await answer.json();
    show([message].flat().map(sentence), false);
    return password.focus();
  }
  show(["Something went wrong. Try again in a moment."], false);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  show([], false);
  try {
    await send();
  } catch {
    show(["The server could not be reached. Check your connection, then try again."], false);
  }
  button.disabled = false;
});

form.querySelector("#show")?.addEventListener("change", (event) => {
  password.type = event.target.checked ? "text" : "password";
});

if (/^[0-9a-f]{64}$/.test(token)) {
  form.hidden = false;
  (password ?? button).focus();
} else {
  end(INCOMPLETE, false);
}
