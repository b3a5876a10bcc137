/** `jiji network status` for people: 80 columns for a few servers, readable for many. Pure. */
import type { Symbols } from "../output/symbols.ts";
import { displayWidth, renderTable } from "../output/table.ts";
import type { LinkView, ServerView, StatusView } from "./status_view.ts";

/** Columns that a terminal has at least. */
const WIDTH = 80;
/** Up to so many servers every link is shown; of more, those that need a look. */
const ALL_LINKS_MAX = 4;
/** More links are not shown, however many need a look; `--json` has all. */
const LINES_MAX = 20;
/** A share of lost probes that is worth a look. */
const LOSS_WORTH_A_LOOK = 0.05;

/** Whether every server that was asked is a member and answers every other. */
export function isAllLinked(view: StatusView): boolean {
  return view.servers.every((server) =>
    server.state === "not asked" ||
    (server.state === "member" && Object.values(server.links).every((link) => link.linked))
  );
}

/** A line for each thing that servers told: those that told the same share it. */
export function renderTold(told: ReadonlyMap<string, readonly string[]>): string[] {
  const tellers = new Map<string, string[]>();
  for (const [name, texts] of [...told].sort(([a], [b]) => a < b ? -1 : 1)) {
    for (const text of texts) tellers.set(text, [...tellers.get(text) ?? [], name]);
  }
  return [...tellers].map(([text, names]) => `${names.join(" ")}: ${text}`);
}

/** The table of servers: a round trip for each pair while that fits, else how many answer. */
export function renderServers(view: StatusView, symbols: Pick<Symbols, "dot">): string[] {
  const names = view.servers.map((server) => server.name);
  const tail = (server: ServerView) => [
    server.containers === null ? "?" : String(server.containers),
    server.seen,
  ];
  const head = (server: ServerView) => [
    server.name,
    server.address,
    server.block ?? server.state,
  ];
  const matrix = renderTable(
    ["server", "address", "block", ...names.map((name) => `to ${name}`), "containers", "seen"],
    view.servers.map((server) => [
      ...head(server),
      ...names.map((peer) => cellOf(server, peer, symbols.dot)),
      ...tail(server),
    ]),
  );
  if (matrix.every((line) => displayWidth(line) <= WIDTH)) return matrix;
  return renderTable(
    ["server", "address", "block", "links", "rtt", "loss", "containers", "seen"],
    view.servers.map((server) => [...head(server), ...summaryOf(server), ...tail(server)]),
  );
}

function cellOf(server: ServerView, peer: string, dot: string): string {
  if (peer === server.name) return dot;
  const link = server.links[peer];
  if (!link) return "?";
  return link.linked ? renderRtt(link) : "no link";
}

function renderRtt(link: LinkView): string {
  if (link.daemonless) return "daemon?";
  return link.rttMs === null ? "-" : `${link.rttMs.toFixed(1)} ms`;
}

/** `28/29`, the middle round trip, and the worst loss. */
function summaryOf(server: ServerView): string[] {
  const links = Object.values(server.links);
  if (links.length === 0) return ["?", "?", "?"];
  const linked = links.filter((link) => link.linked);
  const rtts = linked.flatMap((link) => link.rttMs ?? []).sort((a, b) => a - b);
  const middle = rtts[rtts.length >> 1];
  const losses = links.flatMap((link) => link.loss ?? []);
  return [
    `${linked.length}/${links.length}`,
    middle === undefined ? "-" : `${middle.toFixed(1)} ms`,
    losses.length === 0 ? "-" : percent(Math.max(...losses)),
  ];
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** A line for each link: of few servers all, of many those that need a look. */
export function renderLinks(view: StatusView): string[] {
  const hasPsk = view.servers.some((server) => Object.values(server.links).some((one) => one.psk));
  const links = view.servers.flatMap((server) =>
    Object.entries(server.links).map(([peer, link]) => ({ from: server.name, to: peer, link }))
  );
  const needsLook = ({ link }: (typeof links)[number]) =>
    !link.linked || (link.loss ?? 0) > LOSS_WORTH_A_LOOK || (hasPsk && link.psk === false);
  const shown = view.servers.length <= ALL_LINKS_MAX ? links : links.filter(needsLook);
  if (shown.length === 0) return [];
  const lines = renderTable(
    ["link", "endpoint", "handshake", "rtt", "loss", "mtu", "psk"],
    shown.slice(0, LINES_MAX).map(({ from, to, link }) => [
      `${from} > ${to}`,
      link.endpoint ?? "-",
      link.handshakeAgeSeconds === null ? "never" : `${link.handshakeAgeSeconds} s`,
      link.linked ? renderRtt(link) : "none",
      link.loss === null ? "-" : percent(link.loss),
      link.mtu === null ? "-" : String(link.mtu),
      link.psk === null ? "-" : link.psk ? "yes" : "no",
    ]),
  );
  const more = shown.length - LINES_MAX;
  return more > 0 ? [...lines, `  ${more} more links need a look: --json has all`] : lines;
}

/** So many pairs are named. */
const APART_NAMED_MAX = 3;

/** What may not be mended by waiting, a sentence each. */
export function linkProblems(view: StatusView): string[] {
  const byName = new Map(view.servers.map((server) => [server.name, server]));
  const apart: string[] = [];
  const problems: string[] = [];
  for (const server of view.servers) {
    for (const [name, link] of Object.entries(server.links)) {
      const other = byName.get(name);
      const isSecond = other?.links[server.name] !== undefined && name < server.name;
      if (link.linked || !other || isSecond) continue;
      if (server.nat && other.nat) {
        problems.push(
          `${server.name} and ${name} are both behind NAT and neither can be dialled: forward ` +
            "network.wireguard_port (UDP) to one of them; jiji has no relay",
        );
      } else if (reachesOthers(server) && reachesOthers(other)) {
        apart.push(`${server.name} and ${name}`);
      }
    }
  }
  return apart.length === 0 ? problems : [...problems, apartProblem(apart)];
}

function reachesOthers({ links }: ServerView): boolean {
  return Object.values(links).some(({ linked }) => linked);
}

/** NAT is known only where a server could ask for its address as the internet sees it. */
function apartProblem(pairs: readonly string[]): string {
  const more = pairs.length - APART_NAMED_MAX;
  const named = pairs.slice(0, APART_NAMED_MAX).join(", ") + (more > 0 ? `, ${more} more` : "");
  return `${named}: no link, though they reach others. If it stays so, let ` +
    "network.wireguard_port (UDP) through between them; of two behind NAT forward it to one, " +
    "jiji has no relay";
}
