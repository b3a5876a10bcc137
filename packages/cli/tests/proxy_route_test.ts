import assert from "node:assert/strict";
import { isVouched } from "@jiji/core";
import { argvDeployRoute } from "../src/lib/engine/proxy_commands.ts";
import { proxyRoute } from "../src/lib/proxy/proxy_route.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";

/** The route of `web` with these keys of its proxy, beside another service. */
function routeOf(proxy: string, certificate?: string) {
  const configuration = configurationOf(configText(`  web:
    image: nginx
    hosts: [s1]
    ports: [80, 81]
    proxy: ${proxy}
  root:
    image: nginx
    hosts: [s1]
    ports: [80]
    proxy: {app_port: 80, host: secure.example.com, ssl: true}
`));
  configuration.validate();
  const web = configuration.services.get("web")!;
  return proxyRoute(configuration, web, { target: web.proxy!.targets[0]!, certificate });
}

/** Flags beside those of the health check. */
const flagsOf = (proxy: string, certificate?: string) =>
  routeOf(proxy, certificate).flags.filter((flag) => !flag.startsWith("--health-check"));

Deno.test("proxyRoute(): each key is its flag of kamal-proxy 0.9.2", () => {
  const cases: readonly [proxy: string, flags: string[]][] = [
    ["{app_port: 80}", []],
    ["{app_port: 80, hosts: [b.com, A.com]}", ["--host=a.com", "--host=b.com"]],
    ["{app_port: 80, host: a.com, ssl: true}", ["--host=a.com", "--tls"]],
    [
      "{app_port: 80, host: a.com, ssl: true, ssl_redirect: false}",
      ["--host=a.com", "--tls", "--tls-redirect=false"],
    ],
    [
      "{app_port: 80, hosts: [a.com, www.a.com], canonical_host: www.a.com}",
      ["--canonical-host=www.a.com", "--host=a.com", "--host=www.a.com"],
    ],
    ["{app_port: 80, forward_headers: true}", ["--forward-headers=true"]],
    ["{app_port: 80, response_timeout: 1500ms}", ["--target-timeout=1500ms"]],
    [
      "{app_port: 80, path_prefix: /api/, strip_path_prefix: false}",
      ["--path-prefix=/api", "--strip-path-prefix=false"],
    ],
    [
      "{app_port: 80, buffering: {requests: true, max_request_body: 10m, memory: 512k}}",
      ["--buffer-memory=524288", "--buffer-requests", "--max-request-body=10485760"],
    ],
    [
      "{app_port: 80, buffering: {responses: true, max_response_body: 1.5g}}",
      ["--buffer-responses", "--max-response-body=1610612736"],
    ],
    [
      "{app_port: 80, log_headers: {request: [Referer, X-A], response: [Age]}}",
      ["--log-request-header=Referer", "--log-request-header=X-A", "--log-response-header=Age"],
    ],
  ];
  for (const [proxy, flags] of cases) assert.deepEqual(flagsOf(proxy), flags, proxy);
});

Deno.test("proxyRoute(): a certificate of the user is one file with chain and key", () => {
  const proxy = "{app_port: 80, host: a.com, ssl: {certificate_pem: A, private_key_pem: B}}";
  assert.deepEqual(flagsOf(proxy, "/certificates/a.pem"), [
    "--host=a.com",
    "--tls",
    "--tls-certificate-path=/certificates/a.pem",
    "--tls-private-key-path=/certificates/a.pem",
  ]);
});

Deno.test("proxyRoute(): below a prefix of a host with TLS, forwarded headers are not believed", () => {
  const below = "{app_port: 80, host: secure.example.com, path_prefix: /api}";
  assert.ok(flagsOf(below).includes("--forward-headers=false"));
  const plain = "{app_port: 80, host: plain.example.com, path_prefix: /api}";
  assert.deepEqual(flagsOf(plain), ["--host=plain.example.com", "--path-prefix=/api"]);
  const asked =
    "{app_port: 80, host: secure.example.com, path_prefix: /api, forward_headers: true}";
  assert.ok(flagsOf(asked).includes("--forward-headers=true"));
});

Deno.test("proxyRoute(): the proxy checks by HTTP where the configuration does", () => {
  const { flags } = routeOf(
    "{app_port: 80, host: a.com, healthcheck: {path: /ok, port: 81, interval: 2s, timeout: 500ms}}",
  );
  assert.deepEqual(flags, [
    "--health-check-host=a.com",
    "--health-check-interval=2s",
    "--health-check-path=/ok",
    "--health-check-port=81",
    "--health-check-timeout=500ms",
    "--host=a.com",
  ]);
  assert.equal(isVouched({ flags }), false);
});

Deno.test("proxyRoute(): any other check is vouched for while the route is set", () => {
  for (const check of ["tcp: true", "cmd: 'true'", "engine: true"]) {
    const route = routeOf(`{app_port: 80, host: a.com, healthcheck: {${check}}}`);
    assert.ok(isVouched(route), check);
    assert.ok(!route.flags.includes("--force"), "it only skips waiting, not the check");
    const targets = ["10.210.1.3:80", "10.210.1.4:80"];
    const argv = argvDeployRoute("podman", route, {
      targets,
      drainTimeoutMs: 30_000,
      deployTimeoutMs: 5_000,
    });
    assert.deepEqual(argv.slice(0, 6), [
      "/opt/jiji/bin/jiji-daemon",
      "vouch",
      "--targets=10.210.1.3:80,10.210.1.4:80",
      "--timeout-ms=50000",
      "--",
      "podman",
    ]);
  }
});
