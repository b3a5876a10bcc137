import {
  CORROSION_API_PORT,
  CORROSION_GOSSIP_PORT,
  MESH_INTERFACE,
  MESH_MTU_MIN,
  parseCidr,
  type Secret,
  SERVER_PATHS,
  SERVER_UNITS,
  serverAddress,
  type ServerConfig,
  WIREGUARD_CONF,
} from "@jiji/core";

const UNIT_FOLDER = "/etc/systemd/system";
const CORROSION_UNIT = `${UNIT_FOLDER}/jiji-corrosion.service`;
const DNS_UNIT = `${UNIT_FOLDER}/jiji-dns.service`;
const DAEMON_UNIT = `${UNIT_FOLDER}/jiji-daemon.service`;
/** Folder of what is added to wg-quick's own unit, and of nothing else. */
export const WIREGUARD_DROP_IN_FOLDER: string = `${UNIT_FOLDER}/${SERVER_UNITS.wireguard}.d`;
const WIREGUARD_DROP_IN = `${WIREGUARD_DROP_IN_FOLDER}/jiji.conf`;

/** Files that systemd reads: of our own units, and what is added to wg-quick's. */
export const UNIT_PATHS: readonly string[] = [
  CORROSION_UNIT,
  DNS_UNIT,
  DAEMON_UNIT,
  WIREGUARD_DROP_IN,
];

/** A file that `server init` keeps as it should be. */
export interface ManagedFile {
  readonly path: string;
  /** Octal permission bits. */
  readonly mode: number;
  /** `user:group`. */
  readonly owner: string;
  readonly content: string;
  /** Unit to restart when the file changes, unless it is written for the first time. */
  readonly unit?: "wireguard" | "corrosion" | "dns" | "daemon";
}

/**
 * wg-quick configuration without any secret: the key is loaded from its own file; peers, and an MTU
 * above the least, are the daemon's business. Source: wg-quick(8).
 */
export function renderWireguardConf(config: ServerConfig): string {
  const block = parseCidr(config.block)!;
  return `# Written by jiji server init.
[Interface]
Address = ${serverAddress(block)}/32, ${config.management_ip}/128
ListenPort = ${config.wireguard_port}
MTU = ${MESH_MTU_MIN}
PostUp = wg set %i private-key ${SERVER_PATHS.wireguardKey}
`;
}

/** Largest gossip datagram, which every way carries: the least MTU less IPv6 (40) and UDP (8) headers. */
const GOSSIP_MTU = MESH_MTU_MIN - 48;

/**
 * Corrosion looks this often whether changes wait that are too few for a batch, milliseconds; they
 * wait only while others are being applied. Its default of 10 costs a fifth of its idle time.
 */
const APPLY_TICK_MS = 200;

/**
 * Corrosion's configuration. Gossip runs on the server's management address, inside WireGuard, so
 * it needs no TLS of its own. Source: superfly/corrosion `doc/config.md`; keys both 1.0 and klukai
 * 0.1.4 know.
 */
export function renderCorrosionConfig(
  config: ServerConfig,
  options: { readonly bootstrap: readonly string[]; readonly token: Secret },
): string {
  return `# Written by jiji server init.
[db]
path = "${SERVER_PATHS.corrosionState}/state.db"
schema_paths = ["${SERVER_PATHS.corrosionSchemas}"]

[gossip]
addr = "[${config.management_ip}]:${CORROSION_GOSSIP_PORT}"
bootstrap = ${JSON.stringify(options.bootstrap)}
plaintext = true
max_mtu = ${GOSSIP_MTU}

[perf]
apply_queue_timeout = ${APPLY_TICK_MS}

[api]
addr = "127.0.0.1:${CORROSION_API_PORT}"

[api.authz]
bearer-token = "${options.token.reveal()}"

[admin]
path = "${SERVER_PATHS.run}-corrosion/admin.sock"
`;
}

const CONFINED = `ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native`;

const HARDENED = `NoNewPrivileges=yes
${CONFINED}`;

/** What programs need that open sockets, speak to the kernel's network, and start ordinary others. */
const ORDINARY_CALLS = `SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK`;

/** For programs that run as the user jiji and touch nothing but files and sockets of their own. */
const UNPRIVILEGED = `${HARDENED}
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
DevicePolicy=closed
RestrictNamespaces=yes
RemoveIPC=yes
${ORDINARY_CALLS}`;

/**
 * What is added to wg-quick's unit. `ip`, `wg` and wireguard-go need the right to the network alone,
 * wireguard-go a device and a socket of its own too; a kernel that has WireGuard as a module loads it
 * itself. Without NoNewPrivileges: SELinux and AppArmor may have a domain of their own for `wg` and
 * `ip`, which must stay able to enter it. It holds from the next start on: a mesh that runs is left
 * alone.
 */
export function renderWireguardDropIn(): string {
  return `# Written by jiji server init.
[Service]
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE
RuntimeDirectory=wireguard
RuntimeDirectoryPreserve=yes
${CONFINED}
ProtectKernelTunables=yes
ProtectProc=invisible
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
RestrictNamespaces=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
UMask=0077
${ORDINARY_CALLS}
`;
}

/** Waits before Corrosion starts; see {@link renderAwaitMesh}. */
export const AWAIT_MESH: string = "/etc/jiji/await-mesh.sh";

/**
 * Corrosion announces itself when it starts, and again only after tens of seconds: after a reboot
 * it must not start before the daemon has given WireGuard its peers and one of them has answered.
 * Five seconds are enough for that; a server without reachable peers goes on alone.
 */
export function renderAwaitMesh(): string {
  return `#!/bin/sh
# Written by jiji server init.
grep -qs public_key ${SERVER_PATHS.peerSeed} ${SERVER_PATHS.daemonState}/peers.json || exit 0
tries=0
while [ "$tries" -lt 50 ]; do
  wg show ${MESH_INTERFACE} latest-handshakes 2>/dev/null | grep -q '[[:space:]][1-9][0-9]*$' && exit 0
  tries=$((tries + 1))
  sleep 0.1
done
exit 0
`;
}

/** Unit of Corrosion: unprivileged, private temporary folder, slow restart (it panics within 6 s). */
export function renderCorrosionUnit(): string {
  return `# Written by jiji server init.
[Unit]
Description=Corrosion, the state of the jiji cluster
Wants=wg-quick@${MESH_INTERFACE}.service
After=wg-quick@${MESH_INTERFACE}.service
StartLimitIntervalSec=0

[Service]
User=jiji
Group=jiji
ExecStartPre=+/bin/sh ${AWAIT_MESH}
ExecStart=${SERVER_PATHS.bin}/corrosion agent -c ${SERVER_PATHS.corrosionConfig}
Environment=TMPDIR=${SERVER_PATHS.corrosionState}/tmp
RuntimeDirectory=jiji-corrosion
Restart=always
RestartSec=6
TimeoutStopSec=15
LimitNOFILE=65536
UMask=0077
ReadWritePaths=${SERVER_PATHS.corrosionState}
${UNPRIVILEGED}
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
`;
}

/**
 * Unit of jiji-dns: unprivileged but for the right to listen on port 53. systemd keeps its sockets
 * over a restart, so that queries wait for the new process instead of being lost. Every call between
 * services begins with it, so it goes before containers that take all the processor.
 */
export function renderDnsUnit(): string {
  return `# Written by jiji server init.
[Unit]
Description=jiji-dns, names of containers
Wants=wg-quick@${MESH_INTERFACE}.service
After=wg-quick@${MESH_INTERFACE}.service
StartLimitIntervalSec=0

[Service]
User=jiji
Group=jiji
ExecStart=${SERVER_PATHS.bin}/jiji-dns
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
Restart=always
RestartSec=100ms
FileDescriptorStoreMax=8
NotifyAccess=main
UMask=0022
ReadWritePaths=${SERVER_PATHS.dnsState}
Nice=-10
${UNPRIVILEGED}

[Install]
WantedBy=multi-user.target
`;
}

/** Docker runs the containers, so that the daemon needs only what it does with its own hands. */
const DAEMON_BESIDE_DOCKER = `CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH
CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER CAP_SETUID CAP_SETGID CAP_KILL
ReadWritePaths=/etc/jiji /etc/wireguard /run /var/lib/jiji
CacheDirectory=jiji
${HARDENED.replace("ProtectHome=yes", "ProtectHome=read-only")}
RestrictNamespaces=net
${ORDINARY_CALLS}`;

/**
 * What `podman exec` runs in containers, which is what health checks by command are, is a child of
 * the daemon and has its limits. So: all capabilities, or checks in privileged containers do not
 * start ("unable to apply caps"); no NoNewPrivileges, or `sudo` in a check fails; no mount namespace
 * (as `ProtectSystem` and the like make one), in which the file systems of containers that started
 * later can't be seen; and of the system calls only those are kept away that no check needs.
 */
const DAEMON_BESIDE_PODMAN = `RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
DevicePolicy=closed
SystemCallFilter=~@clock @cpu-emulation @debug @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK AF_PACKET`;

/**
 * Unit of jiji-daemon: root, since it drives WireGuard, routes, firewall and engine. It does not
 * wait for the engine: the mesh comes first, and Corrosion waits for it. The C library keeps less of
 * what was freed (mallopt(3)): some 4 MB of 86.
 */
export function renderDaemonUnit(engine: ServerConfig["engine"]): string {
  return `# Written by jiji server init.
[Unit]
Description=jiji-daemon, keeps this server's mesh and state true
Wants=wg-quick@${MESH_INTERFACE}.service
After=wg-quick@${MESH_INTERFACE}.service
StartLimitIntervalSec=0

[Service]
ExecStart=${SERVER_PATHS.bin}/jiji-daemon
Environment=MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072
RuntimeDirectory=jiji
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
NotifyAccess=main
WatchdogSec=60
WatchdogSignal=SIGKILL
Restart=always
RestartSec=2
UMask=0022
${engine === "docker" ? DAEMON_BESIDE_DOCKER : DAEMON_BESIDE_PODMAN}

[Install]
WantedBy=multi-user.target
`;
}

/** Every file that makes a server a member, but for the peer seed, which is written only once. */
export function managedFiles(
  config: ServerConfig,
  options: {
    readonly bootstrap: readonly string[];
    readonly token: Secret;
    readonly meshSecret: Secret;
    readonly schema: string;
  },
): ManagedFile[] {
  return [
    {
      path: SERVER_PATHS.serverConfig,
      mode: 0o644,
      owner: "root:root",
      content: JSON.stringify(config, null, 2) + "\n",
      unit: "daemon",
    },
    {
      path: SERVER_PATHS.corrosionToken,
      mode: 0o640,
      owner: "root:jiji",
      content: options.token.reveal() + "\n",
    },
    {
      path: SERVER_PATHS.meshSecret,
      mode: 0o600,
      owner: "root:root",
      content: options.meshSecret.reveal() + "\n",
    },
    {
      path: SERVER_PATHS.corrosionConfig,
      mode: 0o640,
      owner: "root:jiji",
      content: renderCorrosionConfig(config, options),
      unit: "corrosion",
    },
    {
      path: `${SERVER_PATHS.corrosionSchemas}/jiji.sql`,
      mode: 0o644,
      owner: "root:root",
      content: options.schema,
      unit: "corrosion",
    },
    {
      path: WIREGUARD_CONF,
      mode: 0o600,
      owner: "root:root",
      content: renderWireguardConf(config),
      unit: "wireguard",
    },
    {
      path: WIREGUARD_DROP_IN,
      mode: 0o644,
      owner: "root:root",
      content: renderWireguardDropIn(),
    },
    { path: AWAIT_MESH, mode: 0o755, owner: "root:root", content: renderAwaitMesh() },
    {
      path: CORROSION_UNIT,
      mode: 0o644,
      owner: "root:root",
      content: renderCorrosionUnit(),
      unit: "corrosion",
    },
    { path: DNS_UNIT, mode: 0o644, owner: "root:root", content: renderDnsUnit(), unit: "dns" },
    {
      path: DAEMON_UNIT,
      mode: 0o644,
      owner: "root:root",
      content: renderDaemonUnit(config.engine),
      unit: "daemon",
    },
  ];
}
