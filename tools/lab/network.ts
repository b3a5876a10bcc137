/** The lab's network: a switch with a link to each party, and the cuts between them. */
import { runCommand, tryCommand } from "../prepare/command.ts";
import { HUB_ADDRESS } from "../prepare/root.ts";
import type { Cut } from "./model.ts";
import { labOfNamespace, namespaceName, type PartyName, PREFIX_LENGTH } from "./names.ts";

/** The bridge inside the switch's namespace. */
const BRIDGE = "lab0";
const BRIDGE_ADDRESS = "02:1a:b0:00:71:02";

/** Commands for ip(8), one a line, that make the switch. */
export function renderSwitchBatch(): string {
  return [
    // Without an address of its own a bridge takes a new one when a server is plugged in or out.
    `link add ${BRIDGE} address ${BRIDGE_ADDRESS} type bridge forward_delay 0`,
    `addr add ${HUB_ADDRESS}/${PREFIX_LENGTH} dev ${BRIDGE}`,
    `link set lo up`,
    `link set ${BRIDGE} up`,
    "",
  ].join("\n");
}

/** Commands for ip(8) in the switch's namespace that plug a party in. */
export function renderPlugBatch(
  party: PartyName,
  options: { readonly namespace: string; readonly hardwareAddress: string },
): string {
  const { namespace, hardwareAddress } = options;
  return [
    `link add ${party} type veth peer name eth0 address ${hardwareAddress} netns ${namespace}`,
    `link set ${party} master ${BRIDGE} up`,
    "",
  ].join("\n");
}

/** Commands for ip(8) in a party's namespace that give it its address; no route leads out. */
export function renderPartyBatch(address: string): string {
  return [
    `addr add ${address}/${PREFIX_LENGTH} dev eth0`,
    "link set lo up",
    "link set eth0 up",
    "",
  ].join("\n");
}

function renderCutRules(cut: Cut, hook: "forward" | "input" | "output"): readonly string[] {
  const { from, to } = cut;
  if (hook === "forward") {
    if (to === "*") return [`iifname "${from}" drop`, `oifname "${from}" drop`];
    return [
      `iifname "${from}" oifname "${to}" drop`,
      `iifname "${to}" oifname "${from}" drop`,
    ];
  }
  if (to !== "*") return [];
  return [hook === "input" ? `iifname "${from}" drop` : `oifname "${from}" drop`];
}

/**
 * Rules for nft(8) that drop what crosses a cut; they replace those there were in one step. A cut
 * from everyone takes the hub away too.
 */
export function renderCuts(cuts: readonly Cut[]): string {
  const chain = (hook: "forward" | "input" | "output") => {
    const rules = cuts.flatMap((cut) => renderCutRules(cut, hook));
    const head = `    type filter hook ${hook} priority 0; policy accept;`;
    return [`  chain cuts_${hook} {`, head, ...rules.map((rule) => `    ${rule}`), "  }"];
  };
  return [
    "table bridge lab {}",
    "delete table bridge lab",
    "table bridge lab {",
    ...chain("forward"),
    ...chain("input"),
    ...chain("output"),
    "}",
    "",
  ].join("\n");
}

/** Makes the switch of a lab. */
export async function createSwitch(lab: string): Promise<void> {
  const namespace = namespaceName(lab, "switch");
  await runCommand(["ip", "netns", "add", namespace]);
  await runCommand(["ip", "-n", namespace, "-batch", "-"], { input: renderSwitchBatch() });
  // Bridged packets must not meet packet filters of the switch itself.
  await tryCommand([
    ...["ip", "netns", "exec", namespace, "sysctl", "-q", "-w"],
    "net.bridge.bridge-nf-call-iptables=0",
    "net.bridge.bridge-nf-call-ip6tables=0",
  ]);
}

/** Makes a party's namespace and plugs it into the switch. */
export async function plugIn(
  lab: string,
  party: {
    readonly name: PartyName;
    readonly address: string;
    readonly hardwareAddress: string;
  },
): Promise<void> {
  const namespace = namespaceName(lab, party.name);
  await runCommand(["ip", "netns", "add", namespace]);
  const { hardwareAddress } = party;
  await runCommand(["ip", "-n", namespaceName(lab, "switch"), "-batch", "-"], {
    input: renderPlugBatch(party.name, { namespace, hardwareAddress }),
  });
  await runCommand(["ip", "-n", namespace, "-batch", "-"], {
    input: renderPartyBatch(party.address),
  });
}

/** Takes a party's namespace away, and its link with it; nothing when it is not there. */
export async function unplug(lab: string, party: PartyName): Promise<void> {
  // The kernel takes a namespace's links away some time after its last process has ended, and a
  // link of the same name can't be made before.
  await tryCommand(["ip", "-n", namespaceName(lab, "switch"), "link", "delete", party]);
  const namespace = namespaceName(lab, party);
  if (!(await listNamespaces()).includes(namespace)) return;
  await runCommand(["ip", "netns", "delete", namespace]);
}

/** Names of all network namespaces of labs. */
export async function listNamespaces(): Promise<readonly string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir("/run/netns")) {
      if (labOfNamespace(entry.name)) names.push(entry.name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort();
}

/** Makes exactly these cuts. */
export async function applyCuts(lab: string, cuts: readonly Cut[]): Promise<void> {
  await runCommand(["ip", "netns", "exec", namespaceName(lab, "switch"), "nft", "-f", "-"], {
    input: renderCuts(cuts),
  });
}
