"use strict";

const element = (id) => document.getElementById(id);
let picture = null; // a data URL
let messages = [];
let busy = false;

function headers() {
  const token = element("token").value.trim();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function fail(text) {
  element("error").textContent = text || "";
  element("error").hidden = !text;
}

function addTurn(role, text) {
  const turn = document.createElement("li");
  turn.className = role;
  turn.textContent = text;
  element("turns").append(turn);
  turn.scrollIntoView({ block: "end" });
  return turn;
}

function startAnew() {
  messages = [];
  element("turns").replaceChildren();
  element("fresh").disabled = true;
  fail("");
}

function show(file) {
  if (busy) return;
  if (!file || !file.type.startsWith("image/")) {
    fail("That is no picture: choose a PNG, JPEG or WebP file.");
    return;
  }
  const reader = new FileReader();
  reader.onload = () => {
    picture = reader.result;
    element("preview").src = picture;
    element("preview").alt = file.name;
    element("preview").hidden = false;
    element("hint").hidden = true;
    startAnew();
    element("question").focus();
  };
  reader.onerror = () => fail("The file cannot be read.");
  reader.readAsDataURL(file);
}

async function reasonOf(response) {
  if (response.status === 401) element("ask-token").hidden = false;
  try {
    return (await response.json()).error.message;
  } catch {
    return `The service answered with status ${response.status}.`;
  }
}

async function stream(response, take) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const lines = rest.split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      const chunk = JSON.parse(line.slice("data: ".length));
      if (chunk.error) throw new Error(chunk.error.message);
      take(chunk.choices[0]?.delta.content || "");
    }
  }
}

async function answer(turn) {
  const response = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify({ messages, stream: true }),
  });
  if (!response.ok) throw new Error(await reasonOf(response));
  await stream(response, (words) => {
    turn.textContent += words;
    turn.scrollIntoView({ block: "end" });
  });
  return turn.textContent;
}

async function ask(event) {
  event.preventDefault();
  const question = element("question").value.trim() || element("question").placeholder;
  if (busy) return;
  if (!picture) {
    fail("Choose a picture first.");
    return;
  }
  fail("");
  busy = true;
  element("send").disabled = true;
  const first = messages.length === 0;
  const content = first
    ? [{ type: "image_url", image_url: { url: picture } }, { type: "text", text: question }]
    : question;
  messages.push({ role: "user", content });
  const asked = addTurn("user", question);
  const turn = addTurn("assistant waiting", "");
  try {
    messages.push({ role: "assistant", content: (await answer(turn)) || "…" });
    element("question").value = "";
    element("fresh").disabled = false;
  } catch (error) {
    messages.pop();
    asked.remove();
    turn.remove();
    fail(error.message);
  }
  turn.className = "assistant";
  busy = false;
  element("send").disabled = false;
}

async function greet() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (response.status === 401) {
      element("ask-token").hidden = false;
      element("model").textContent = "The service asks for a token.";
    } else {
      element("model").textContent = response.ok ? (await response.json()).data[0].id : "";
    }
  } catch {
    element("model").textContent = "The service does not answer.";
  }
}

const drop = element("drop");
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  show(event.dataTransfer.files[0]);
});
drop.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") element("file").click();
});
element("file").addEventListener("change", (event) => {
  if (event.target.files.length) show(event.target.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) show(event.clipboardData.files[0]);
});
element("fresh").addEventListener("click", startAnew);
element("token").addEventListener("change", greet);
element("ask").addEventListener("submit", ask);
greet();
