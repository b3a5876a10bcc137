/** Where jiji keeps its things on a server. */
export const SERVER_PATHS = {
  /** Executables: corrosion, jiji-dns, jiji-daemon. */
  bin: "/opt/jiji/bin",
  /** {@link ServerConfig} of this server, written by `jiji server init`. */
  serverConfig: "/etc/jiji/server.json",
  /** Peers known when the server joined, written by `jiji server init`; see {@link PeerSeed}. */
  peerSeed: "/etc/jiji/peers.json",
  /** Bearer token of the Corrosion API, 0640 root:jiji. */
  corrosionToken: "/etc/jiji/corrosion.token",
  /** WireGuard private key, 0600 root, made on the server and never leaving it. */
  wireguardKey: "/etc/jiji/wireguard.key",
  /** The key it is about to change to, 0600 root; there only during `network rotate-keys`. */
  wireguardNextKey: "/etc/jiji/wireguard.key.next",
  /** {@link MeshSecret}, 0600 root. */
  meshSecret: "/etc/jiji/mesh.psk",
  /** Corrosion's configuration, 0640 root:jiji: it holds the token. */
  corrosionConfig: "/etc/jiji/corrosion.toml",
  /** Corrosion's schema files. */
  corrosionSchemas: "/etc/jiji/schemas",
  /** Corrosion's database and temporary files. */
  corrosionState: "/var/lib/jiji/corrosion",
  /** The daemon's own state; peer cache. */
  daemonState: "/var/lib/jiji/daemon",
  /** jiji-dns' snapshot. */
  dnsState: "/var/lib/jiji/dns",
  /** Locks of projects, one folder each. */
  locks: "/var/lib/jiji/locks",
  /** Per-project files: env files, uploaded files, audit log. */
  projects: "/var/lib/jiji/projects",
  /** Sockets and files that need not survive a reboot. */
  run: "/run/jiji",
  /** {@link LivenessReport}, written by jiji-daemon, read by jiji-dns. */
  liveness: "/run/jiji/liveness.json",
  /** Containers that jiji-daemon finds healthy now, a line each; see {@link renderHealthyLine}. */
  healthy: "/run/jiji/healthy",
  /** Version of the jiji-daemon that was started last. */
  version: "/run/jiji/version",
  /** Socket on which jiji-daemon tells jiji-dns the {@link ContainerNews}, a line each. */
  news: "/run/jiji/news.sock",
} as const;

/** systemd units on a server. */
export const SERVER_UNITS = {
  wireguard: "wg-quick@jiji0.service",
  corrosion: "jiji-corrosion.service",
  dns: "jiji-dns.service",
  daemon: "jiji-daemon.service",
} as const;

/**
 * Least that a packet of the mesh may hold, octets: IPv6 asks for it, and every way is taken to carry
 * it. Corrosion's packets are never larger. Source: RFC 8200, section 5.
 */
export const MESH_MTU_MIN = 1280;
/** Most that is tried, octets: more than the 1,500 of container interfaces gains nothing. */
export const MESH_MTU_MAX = 1504;
/** wg-quick's configuration of the mesh interface. */
export const WIREGUARD_CONF = "/etc/wireguard/jiji0.conf";
/** Marks rules of ours in a host's firewall that its owner could have written as well. */
export const FIREWALL_MARK = "jiji";

/** WireGuard interface of the mesh. */
export const MESH_INTERFACE = "jiji0";
/**
 * Network of the container engine that holds every jiji container. Not the domain of services:
 * Docker itself answers CONTAINER.NETWORK with the container of that name on the same server, so
 * that `shop-web.jiji` would never reach jiji-dns. Source: seen with Docker 20.10.
 */
export const CONTAINER_NETWORK = "jiji-net";
/** Linux bridge behind that network. */
export const CONTAINER_BRIDGE = "jiji-br0";
/** Name of the proxy's container. */
export const PROXY_CONTAINER = "kamal-proxy";
/** Volume with the proxy's state file and certificates. */
export const PROXY_VOLUME = "jiji-kamal-proxy";
/** Where that volume lies in the proxy's container. Source: kamal-proxy 0.9.2, its Dockerfile. */
export const PROXY_VOLUME_TARGET = "/home/kamal-proxy/.config/kamal-proxy";
/** Folder in that volume with certificates that users brought, a file each: chain, then key. */
export const PROXY_CERTIFICATES = "jiji-certificates";
