"use strict";
// All texts are set as textContent, so that none of the data is read as HTML.
const at = (id) => document.getElementById(id);
const embedded = at("data") && JSON.parse(at("data").textContent);
const cards = new Map(); // item → its title and picture
let history = []; // of a user, or put together here

async function ask(path, body) {
  const how = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, how);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Where the page gets its data: a service, or what is embedded in this file.
const source = embedded
  ? {
      about: async () => embedded.about,
      users: async (search) => Object.keys(embedded.views).filter((one) => one.includes(search)),
      items: async () => ({ found: [], items: embedded.items }),
      view: async ({ user }) => {
        if (!Object.hasOwn(embedded.views, user)) throw new Error(`user ${user} is not in this file`);
        return embedded.views[user];
      },
      similar: async () => ({ by: embedded.by }),
    }
  : {
      about: () => ask("page/about"),
      users: (search) => ask(`page/users?search=${encodeURIComponent(search)}`),
      items: (search) => ask(`page/items?search=${encodeURIComponent(search)}`),
      view: (whose) => ask("page/view", whose),
      similar: (item) => ask(`page/similar?item=${encodeURIComponent(item)}`),
    };

function say(text, wrong = false) {
  at("message").textContent = text;
  at("message").classList.toggle("error", wrong);
}

// A call whose answer is used, unless there was a later call meanwhile.
function latest(call, use) {
  let turn = 0;
  return async (...given) => {
    const mine = ++turn;
    const answer = await call(...given);
    if (mine === turn) use(answer, ...given);
  };
}

const attempt = (action) => (...given) => action(...given).catch((error) => say(error.message, true));

function remember(answer) {
  for (const [item, card] of Object.entries(answer.items ?? {})) cards.set(item, card);
  return answer;
}

function make(tag, name, text = "") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

function bars(list, pairs, scale, name) {
  for (const [key, value] of pairs) {
    const row = make("dd", "");
    const room = make("span", "");
    const bar = room.appendChild(make("div", value < 0 ? "bar less" : "bar"));
    bar.style.width = `${(100 * Math.abs(value)) / scale}%`;
    row.append(room, make("span", "number", value.toFixed(3)));
    list.append(make("dt", "", name(key)), row);
  }
}

function card(item, score = null, why = null, scale = 1) {
  const made = at("card").content.cloneNode(true);
  const { title, picture } = cards.get(item);
  made.querySelector(".title").textContent = title;
  if (picture) Object.assign(made.querySelector("img"), { src: picture, hidden: false });
  if (score !== null) made.querySelector(".score").textContent = score.toFixed(3);
  if (why) {
    bars(made.querySelector(".why"), why.parts, scale, (part) => part);
    bars(made.querySelector(".why"), why.sources, scale, (one) => `from ${cards.get(one).title}`);
  }
  const pick = made.querySelector(".pick");
  pick.dataset.item = item;
  pick.disabled = Boolean(embedded);
  if (!embedded) pick.setAttribute("aria-pressed", history.includes(item));
  pick.addEventListener("click", attempt(() => toggle(item)));
  const alike = made.querySelector(".alike");
  alike.hidden = Boolean(embedded) && !Object.hasOwn(embedded.by, item);
  alike.setAttribute("aria-label", `Similar to ${title}`);
  alike.addEventListener("click", attempt(() => showSimilar(item)));
  return made;
}

// Replace what is in a list; the focus stays on its item, or else goes to the first.
function fill(list, made) {
  const focused = list.contains(document.activeElement) && document.activeElement.dataset.item;
  list.replaceChildren(...made);
  if (focused === false) return;
  const picks = [...list.querySelectorAll(".pick")];
  (picks.find((one) => one.dataset.item === focused) ?? picks[0] ?? at("user")).focus();
}

function toggle(item) {
  const rest = history.filter((one) => one !== item);
  history = rest.length < history.length ? rest : [...history, item];
  return show({ history });
}

const show = latest(source.view, (answer, { user }) => {
  remember(answer);
  history = answer.history;
  say("");
  const pairs = answer.recommended.flatMap((one) => [...one.parts, ...one.sources]);
  const scale = Math.max(...pairs.map((pair) => Math.abs(pair[1])), 1e-9);
  at("whose").textContent = user === undefined ? "History" : `History of ${user}`;
  at("none").hidden = history.length > 0;
  at("none").textContent = user === undefined ? "Empty: the most popular items are recommended." : "The bundle has none of this user.";
  fill(at("history"), history.map((item) => card(item)));
  fill(at("recommended"), answer.recommended.map((one) => card(one.item, one.score, one, scale)));
  if (embedded) return;
  for (const pick of document.querySelectorAll(".pick")) {
    pick.setAttribute("aria-pressed", history.includes(pick.dataset.item));
  }
});

const showSimilar = latest(source.similar, (answer, item) => {
  remember(answer);
  say("");
  at("like").textContent = `Similar to ${cards.get(item).title}`;
  const kinds = Object.entries(answer.by[item]).map(([kind, pairs]) => {
    const list = make("ol", "cards");
    list.append(...pairs.map(([one, score]) => card(one, score)));
    const part = make("section", "");
    part.append(make("h3", "", `by ${kind}`), list);
    return part;
  });
  at("kinds").replaceChildren(...kinds);
  at("similar").hidden = false;
  at("like").focus();
});

const suggest = latest(source.users, (users) => {
  at("users").replaceChildren(...users.map((value) => Object.assign(make("option", ""), { value })));
});

const find = latest(source.items, (answer) => {
  remember(answer);
  fill(at("found"), answer.found.map((item) => card(item)));
});

async function start() {
  const { model, dataset } = await source.about();
  document.title = at("about").textContent = `${model} on ${dataset}`;
  await Promise.all([suggest(""), find("")]);
  if (!embedded) return show({ history });
  document.querySelectorAll("[data-live]").forEach((part) => part.remove());
  at("user").value = Object.keys(embedded.views)[0];
  return show({ user: at("user").value });
}

at("who").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(show)({ user: at("user").value });
});
at("user").addEventListener("input", attempt(() => suggest(at("user").value)));
at("search").addEventListener("input", attempt(() => find(at("search").value)));
at("empty").addEventListener("click", attempt(() => show({ history: [] })));
attempt(start)();
