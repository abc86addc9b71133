// Shows what the JSON below api/ says, and asks for it again every other second while the page is
// visible.  All text gets in as text (textContent): nothing that the network says becomes markup.
"use strict";

const INTERVAL = 2000; // milliseconds
const REQUEST_TIMEOUT = 5000; // milliseconds
const PAGE = 25; // flows
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

/** An element: its class, attributes, and children (elements or text; null is left out). */
function make(tag, classes, attributes, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null).map(asNode));
  return element;
}

const asNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

/** Put children into an element, unless they are made of the same values as last time. */
function fill(element, values, build) {
  const key = JSON.stringify(values);
  if (element.shownFor === key) return false;
  element.shownFor = key;
  element.replaceChildren(...build(values).filter((child) => child !== null));
  return true;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- numbers and words -----------------------------------------------------------------------

const whole = new Intl.NumberFormat("en");
const number = (value) => whole.format(value);

function size(octets) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (octets >= 1000 && unit < units.length - 1) {
    octets /= 1000;
    unit += 1;
  }
  return `${unit && octets < 100 ? octets.toFixed(1) : Math.round(octets)} ${units[unit]}`;
}

function age(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A match or actions, which may be broken after commas and before "->", but not inside that. */
function breakable(text) {
  const nodes = [];
  for (const part of text.split(/(?<=,)|(?=->)/)) {
    nodes.push(document.createElement("wbr"));
    nodes.push(part.startsWith("->") ? make("span", "whole", null, part) : asNode(part));
  }
  return nodes;
}

function listed(numbers) {
  return numbers.length < 2
    ? numbers.join("")
    : `${numbers.slice(0, -1).join(", ")} and ${numbers[numbers.length - 1]}`;
}

const state = (level, text) => make("span", `state ${level}`, null, text);

// --- the summary -----------------------------------------------------------------------------

function showSummary(view) {
  const ports = view.switches.flatMap((each) => each.ports);
  const controllers = view.controllers.filter((each) => each.kind === "controller");
  const tiles = [
    ["Switches up", view.switches.filter((each) => each.state === "up").length,
      view.switches.length],
    ["Tunnels up", view.tunnels.filter((each) => each.state === "up").length,
      view.tunnels.length],
    ["Controllers", controllers.filter((each) => each.connected).length, controllers.length],
    ["Ports up", ports.filter((each) => each.state === "up").length, ports.length],
    ["Flows", view.flows, null],
  ];
  fill(byId("summary"), tiles, () => tiles.map(([label, value, of]) =>
    make("li", "", null,
      make("span", "label", null, label),
      make("span", `value ${of !== null && value < of ? "warn" : ""}`, null, number(value)),
      of === null ? null : make("span", "of", null, ` of ${number(of)}`))));
}

// --- the picture -----------------------------------------------------------------------------

function showPicture(view) {
  fill(byId("controllers"), view.controllers, (controllers) => controllers.map((each) =>
    make("li", each.connected ? "connected" : "apart", null,
      make("div", "controller", null,
        make("span", "kind", null, each.kind === "client" ? "Management" : "Controller"),
        make("span", "mono", null, each.name.replace(/^client /, "")),
        each.connected
          ? state("good", each.role === "other" ? "connected" : `connected, ${each.role}`)
          : state("bad", "not connected"),
        each.dropped_packet_ins
          ? state("warn", `${number(each.dropped_packet_ins)} packet-ins dropped`)
          : null))));

  const ports = view.switches.reduce((sum, each) => sum + each.ports.length, 0);
  fill(byId("chassis-title"), [view.datapath_id, ports], () => [
    make("strong", "", null, "One OpenFlow switch"),
    asNode(` with ${ports} ${ports === 1 ? "port" : "ports"}, datapath `),
    make("span", "mono", null, view.datapath_id),
  ]);

  const shown = view.switches.map((each) => [each, tunnelOf(view, each)]);
  if (fill(byId("members"), shown, () =>
    shown.length
      ? shown.map(([each, tunnel]) => member(each, tunnel))
      : [make("li", "empty", null, "No switch has connected yet.")])) drawWires();
}

/** Whether a switch gets all that changes, as those do that are brought up to date. */
const served = (each) => each.state === "up" || each.state === "syncing";

/** How a switch's tunnel is: a level for its colour, and words. */
function tunnelOf(view, each) {
  if (!served(each)) return ["apart", ""];
  if (each.tunnel_port === null) return ["apart", "no tunnel port"];
  const tunnel = view.tunnels.find((one) => one.switch === each.index);
  if (!tunnel) return ["warn", "tunnel IP not found yet"];
  return tunnel.unreached.length
    ? ["warn", `not reached from ${listed(tunnel.unreached)}`]
    : ["good", ""];
}

function member(each, [level, words]) {
  const levels = { up: "good", syncing: "warn", connecting: "warn", silent: "bad", gone: "bad" };
  const item = make("li", "", { "data-tunnel": level },
    make("div", "tunnel", null,
      make("div", "", null,
        each.tunnel_ip === null ? null : make("span", "mono", null, each.tunnel_ip),
        each.tunnel_name === null ? null
          : make("span", "soft", null, `  ${each.tunnel_name}, port ${each.tunnel_port}`),
        words ? make("div", "warn", null, words) : null)),
    make("div", `card member ${each.state}`, null,
      make("div", "card-title", null,
        make("strong", "", null, `Switch ${each.index}`),
        state(levels[each.state], each.state)),
      make("div", "soft mono", null, `dpid ${each.dpid}`),
      make("div", "ports", null, ...each.ports.map(port)),
      each.left_out.length
        ? make("p", "left-out", null, "Left out: ",
          each.left_out.map((one) => `${one.name} (port ${one.port})`).join(", "))
        : null));
  return item;
}

function port(each) {
  const up = each.state === "up";
  const button = make("button", `port ${up ? "" : "down"}`, {
    type: "button",
    title: `${each.name}: port ${each.switch_port} (${each.switch_name}) of its switch, `
      + `${each.hw_addr}, ${[each.state, ...each.config].join(", ")}. Click for its flows.`,
  },
    make("span", "number", null, each.number),
    make("span", "name", null, each.switch_name),
    up ? null : make("span", "why", null, each.state.replace("switch lost", "lost")));
  button.addEventListener("click", () => {
    byId("search").value = `in_port=${each.number},`;
    searchAgain();
    byId("flows-title").scrollIntoView({ behavior: "smooth" });
  });
  return button;
}

/** The tunnels: a line along each row of switches, down to each, and from row to row. */
function drawWires() {
  const chassis = byId("chassis").getBoundingClientRect();
  const paths = [];
  const rows = [];
  for (const item of byId("members").querySelectorAll("li[data-tunnel]")) {
    const box = item.querySelector(".member").getBoundingClientRect();
    const room = item.getBoundingClientRect();
    const x = Math.round(box.left - chassis.left) + 20;
    const y = Math.round(room.top - chassis.top) + 8;
    paths.push([item.dataset.tunnel, `M${x} ${y}V${Math.round(box.top - chassis.top)}`]);
    const row = rows[rows.length - 1];
    if (row && row.y === y) row.end = x;
    else rows.push({ y, start: x, end: x });
  }
  const edge = byId("members").getBoundingClientRect().left - chassis.left;
  const trunk = rows.length > 1 ? Math.round(edge / 2) : null;
  for (const row of rows) paths.unshift(["", `M${trunk ?? row.start} ${row.y}H${row.end}`]);
  if (trunk !== null) paths.unshift(["", `M${trunk} ${rows[0].y}V${rows[rows.length - 1].y}`]);
  byId("wires").replaceChildren(...paths.map(([classes, d]) => {
    const path = document.createElementNS(SVG, "path");
    if (classes) path.setAttribute("class", classes);
    path.setAttribute("d", d);
    return path;
  }));
}

// --- tunnels and counts ----------------------------------------------------------------------

function showTunnels(view) {
  const ready = view.switches.filter(served).length;
  fill(byId("tunnels"), [view.tunnels, ready], () => view.tunnels.length
    ? view.tunnels.map((each) => make("li", "", null,
      make("span", "mono", null, each.ip),
      make("span", "", null, each.switch === null ? "–" : `Switch ${each.switch}`),
      tunnelWords(each, ready)))
    : [make("li", "soft", null, "No tunnel IP is known.")]);
}

function tunnelWords(tunnel, ready) {
  if (tunnel.switch === null) return state("bad", "no switch answers for this address");
  if (tunnel.unreached.length) {
    const switches = tunnel.unreached.length > 1 ? "switches" : "switch";
    return state("warn", `not reached from ${switches} ${listed(tunnel.unreached)}`);
  }
  return state("good", ready > 1 ? "reached from every other switch" : "up");
}

function showCounts(counts) {
  const names = {
    flow_mods: "Flow-mods",
    packet_ins: "Packet-ins",
    packet_outs: "Packet-outs",
    barriers: "Barriers",
    errors: "Errors to controllers",
    refusals: "Refused by switches",
    resynchronisations: "Resynchronisations",
    foreign_frames: "Foreign frames in tunnels",
  };
  fill(byId("counts"), counts, () =>
    pairs(Object.entries(names).map(([key, name]) => [name, number(counts[key])])));
}

// --- the flow table --------------------------------------------------------------------------

const table = { offset: 0, found: 0, sort: "priority", order: "desc", rows: new Map() };

function flowsUrl() {
  const query = new URLSearchParams({
    search: byId("search").value,
    sort: table.sort,
    order: table.order,
    offset: table.offset,
    limit: PAGE,
  });
  return `api/flows?${query}`;
}

function showFlows(answer) {
  table.found = answer.found;
  if (table.offset && table.offset >= answer.found) {
    // The page's last flow has gone.
    table.offset = Math.max(0, Math.ceil(answer.found / PAGE) - 1) * PAGE;
    tickNow();
    return;
  }
  const rows = new Map();
  for (const flow of answer.page) {
    const row = table.rows.get(flow.switch_cookie) || new FlowRow(flow);
    row.show(flow);
    rows.set(flow.switch_cookie, row);
  }
  const body = byId("flows").tBodies[0];
  const wanted = [...rows.values()].map((row) => row.element);
  if (wanted.length !== body.children.length
    || wanted.some((element, i) => element !== body.children[i])) body.replaceChildren(...wanted);
  table.rows = rows;

  byId("flows").hidden = !answer.page.length;
  byId("no-flows").hidden = answer.page.length > 0;
  setText(byId("no-flows"), answer.flows
    ? `None of the ${number(answer.flows)} flows has all of these words.`
    : "There are no flows.");
  const last = table.offset + answer.page.length;
  byId("pager").hidden = !answer.page.length;
  setText(byId("range"), `${number(table.offset + 1)}–${number(last)} of ${number(answer.found)}`
    + (answer.found < answer.flows ? ` found in ${number(answer.flows)}` : ""));
  for (const button of byId("pager").querySelectorAll("button")) {
    const back = button.dataset.go === "first" || button.dataset.go === "previous";
    button.disabled = back ? table.offset === 0 : last >= answer.found;
  }
  for (const head of byId("flows").querySelectorAll("th[data-sort]")) {
    if (head.dataset.sort === table.sort) {
      head.setAttribute("aria-sort", table.order === "desc" ? "descending" : "ascending");
    } else {
      head.removeAttribute("aria-sort");
    }
  }
  byId("sort").value = table.sort;
}

/** A row of the table; it stays while its flow does, so that a selection in it stays too. */
class FlowRow {
  constructor(flow) {
    this.link = make("a", "", { href: `#flow=${flow.switch_cookie}` });
    this.priority = make("td", "number", { "data-label": "Priority" });
    this.actions = make("td", "text actions-text");
    this.packets = make("td", "number", { "data-label": "Packets" });
    this.octets = make("td", "number", { "data-label": "Bytes" });
    this.age = make("td", "number", { "data-label": "Age" });
    this.cookie = make("td", "text", { "data-label": "Cookie" });
    this.switches = make("td", "", { "data-label": "On switches" });
    this.element = make("tr", "", null,
      this.priority, make("td", "text match", null, this.link), this.actions, this.packets,
      this.octets, this.age, this.cookie, this.switches);
    this.element.addEventListener("click", () => {
      // Not when somebody has just marked some of the text.
      if (!String(window.getSelection())) window.location.hash = `flow=${flow.switch_cookie}`;
    });
    this.counted = null;
  }

  show(flow) {
    setText(this.priority, String(flow.priority));
    fill(this.link, flow.match, () => breakable(flow.match || "any packet"));
    fill(this.actions, flow.actions, () => breakable(flow.actions));
    setText(this.packets, number(flow.packets));
    setText(this.octets, size(flow.octets));
    this.octets.title = `${number(flow.octets)} bytes`;
    setText(this.age, age(flow.duration));
    setText(this.cookie, flow.cookie);
    setText(this.switches, flow.switches.length > 6
      ? `${flow.switches.length} switches` : flow.switches.join(", ") || "none yet");
    this.packets.classList.remove("moved");
    if (this.counted !== null && flow.packets !== this.counted) {
      void this.packets.offsetWidth; // so that the animation begins anew
      this.packets.classList.add("moved");
    }
    this.counted = flow.packets;
  }
}

function searchAgain() {
  table.offset = 0;
  tickNow();
}

function sortBy(name) {
  if (table.sort === name) {
    table.order = table.order === "desc" ? "asc" : "desc";
  } else {
    table.sort = name;
    table.order = "desc";
  }
  searchAgain();
}

function turnPage(where) {
  const lastPage = Math.max(0, Math.ceil(table.found / PAGE) - 1) * PAGE;
  table.offset = {
    first: 0,
    previous: Math.max(0, table.offset - PAGE),
    next: Math.min(lastPage, table.offset + PAGE),
    last: lastPage,
  }[where];
  tickNow();
}

// --- one flow --------------------------------------------------------------------------------

const openFlow = () => (window.location.hash.match(/^#flow=(0x[0-9a-f]+)$/) || [])[1] || null;

function showFlow(flow) {
  const dialog = byId("flow");
  byId("flow-gone").hidden = flow !== null;
  byId("flow-body").hidden = flow === null;
  if (flow === null) {
    setText(byId("flow-gone"), "This flow is not in the table any more.");
  } else {
    fill(byId("flow-north"), flow, northern);
    fill(byId("flow-copies"), [flow.copies, flow.cookie], () => flow.copies.length
      ? flow.copies.map((copy) => installedOn(copy, flow.cookie))
      : [make("li", "empty", null,
        "On none: the switch of its ingress port has not connected yet.")]);
  }
  if (!dialog.open) dialog.showModal();
}

/** A list of names with their values, each in an element of its own. */
function pairs(list) {
  return list.filter((pair) => pair !== null).map(([name, value, classes]) =>
    make("div", "", null,
      make("dt", "", null, name),
      make("dd", classes || "", null, ...(Array.isArray(value) ? value : [value]))));
}

function northern(flow) {
  const timeouts = [
    flow.idle_timeout ? `idle ${flow.idle_timeout} s` : null,
    flow.hard_timeout ? `hard ${flow.hard_timeout} s` : null,
  ].filter(Boolean);
  return pairs([
    ["Priority", String(flow.priority)],
    ["Match", breakable(flow.match || "any packet"), "mono"],
    ["Actions", breakable(flow.actions), "mono"],
    ["Cookie", flow.cookie, "mono"],
    ["Timeouts", timeouts.join(", ") || "none"],
    flow.flags.length ? ["Flags", flow.flags.join(", "), "mono"] : null,
    ["Age", age(flow.duration)],
    ["Packets", number(flow.packets)],
    ["Bytes", number(flow.octets)],
  ]);
}

function installedOn(copy, cookie) {
  const levels = { installed: "good", differs: "bad", missing: "bad", "no answer": "warn" };
  const has = copy.installed;
  const item = make("li", "card", null,
    make("div", "card-title", null,
      make("strong", "", null, `Switch ${copy.switch}`),
      state(levels[copy.state] || "bad", copy.state)));
  if (has) {
    item.append(make("dl", "", null, ...pairs([
      ...entry(has, cookie),
      ["Packets", number(has.packets)],
      ["Bytes", number(has.octets)],
      ["Idle for", age(has.idle_age)],
    ])));
  }
  if (copy.wanted && copy.state !== "installed") {
    item.append(
      make("h3", "", null, "What has to be there"),
      make("dl", "", null, ...pairs(entry(copy.wanted, cookie))));
  }
  return item;
}

function entry(has, cookie) {
  return [
    ["Table", `${has.table}, priority ${has.priority}`],
    ["Match", breakable(has.match || "any packet"), "mono"],
    ["Actions", [make("ul", "actions", null, ...(has.actions.length
      ? has.actions.map((action) => make("li", "", null,
        make("span", "mono", null, ...breakable(action.text)),
        action.note ? make("span", "note", null, action.note) : null))
      : [make("li", "mono", null, "drop")]))]],
    ["Cookie here", has.cookie, "mono"],
    ["Controller's", cookie, "mono"],
  ];
}

// --- keeping it up to date -------------------------------------------------------------------

async function get(url) {
  const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(REQUEST_TIMEOUT) });
  const answer = await response.json();
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

let timer = null;
let asked = 0; // counts the rounds: only the newest may show what it has got
let gone = null; // the flow that was shown and is not there any more: it will not come back

async function tick() {
  const round = (asked += 1);
  const cookie = openFlow();
  clearTimeout(timer);
  try {
    const [view, flows, flow] = await Promise.all([
      get("api/switch"),
      get(flowsUrl()),
      cookie && cookie !== gone ? get(`api/flows/${cookie}`) : null,
    ]);
    if (round !== asked) return;
    showSummary(view);
    showPicture(view);
    showTunnels(view);
    showCounts(view.counts);
    showFlows(flows);
    if (cookie) {
      if (flow === null) gone = cookie;
      showFlow(flow);
    }
    byId("live").className = "";
    setText(byId("live"), "Live, every 2 seconds");
  } catch (error) {
    if (round !== asked) return;
    byId("live").className = "bad";
    setText(byId("live"), error instanceof TypeError || error instanceof DOMException
      ? "No answer from POX; trying again. What is shown is old."
      : `${error.message} What is shown is old.`);
  }
  if (!document.hidden) timer = setTimeout(tick, INTERVAL);
}

const tickNow = () => void tick();

let typing = null;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(searchAgain, 250);
});
byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  searchAgain();
});
byId("sort").addEventListener("change", (event) => {
  table.sort = event.target.value;
  table.order = "desc";
  searchAgain();
});
for (const head of byId("flows").querySelectorAll("th[data-sort]")) {
  head.firstElementChild.addEventListener("click", () => sortBy(head.dataset.sort));
}
byId("pager").addEventListener("click", (event) => {
  if (event.target.dataset.go) turnPage(event.target.dataset.go);
});

byId("flow").addEventListener("close", () => {
  if (openFlow()) window.history.pushState(null, "", window.location.pathname);
});
byId("flow").addEventListener("click", (event) => {
  if (event.target === byId("flow")) byId("flow").close(); // beside it
});
window.addEventListener("hashchange", () => {
  if (openFlow()) tickNow();
  else byId("flow").close();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tickNow();
});
new ResizeObserver(drawWires).observe(byId("members"));

tickNow();
