/** WireGuard, UDP, on every interface of a server. */
export const WIREGUARD_PORT: number = 31820;
/** Corrosion gossip, UDP, on the server's management address only. */
export const CORROSION_GOSSIP_PORT: number = 31280;
/** Corrosion HTTP API, TCP, on 127.0.0.1 only. */
export const CORROSION_API_PORT: number = 31220;
/** Liveness probes between daemons, UDP, on the server's mesh address only. */
export const PROBE_PORT: number = 31281;
/** News of containers between daemons, UDP, on the server's mesh address only. */
export const NEWS_PORT: number = 31282;
/** Metrics and state of jiji-daemon, TCP, on the server's mesh address. */
export const DAEMON_STATUS_PORT: number = 31283;
/** Words to servers that were removed, UDP, on the server's mesh address only. */
export const FAREWELL_PORT: number = 31284;
/** The registry that the operator's machine provides, TCP, loopback on both ends. */
export const REGISTRY_PORT: number = 31270;
/** jiji-dns, UDP and TCP, on the server's mesh address. */
export const DNS_PORT: number = 53;
/** Metrics and names of jiji-dns, TCP, on the server's mesh address. */
export const DNS_STATUS_PORT: number = 31253;
/**
 * HTTP, TCP, inside a container's own network and only while its route is set: jiji-daemon answers
 * kamal-proxy's check there for a container whose check is not HTTP.
 */
export const VOUCH_PORT: number = 31299;
