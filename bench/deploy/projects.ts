/** The same small service as a project of jiji and of Kamal. */

/** Where Kamal's servers pull from: the laptop's loopback, forwarded over SSH. */
export const KAMAL_REGISTRY = "localhost:5555";

/** Answers `/up` on port 8080; ends at once when it is told to, so that no grace is measured. */
const DOCKERFILE = `FROM busybox:1
COPY up /www/up
STOPSIGNAL SIGKILL
EXPOSE 8080
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
`;

/** Makes the next build another version. */
export async function setVersion(folder: string, version: string): Promise<void> {
  await Deno.writeTextFile(`${folder}/app/up`, `ok ${version}\n`);
}

async function writeApp(folder: string): Promise<void> {
  await Deno.mkdir(`${folder}/app`, { recursive: true });
  await Deno.writeTextFile(`${folder}/app/Dockerfile`, DOCKERFILE);
}

/** Services of one server each, in turns. */
export function manyServices(count: number): string {
  return Array.from({ length: count }, (_, index) =>
    `  app${index + 1}:
    image: busybox:1
    hosts: [s${index % 3 + 1}]
    command: httpd -f -p 8080
    ports: [8080]
    environment: {clear: {NUMBER: ${index + 1}}}
`).join("");
}

const ONE_SERVICE = `  app:
    build: ./app
    hosts: [s1, s2]
    ports: [8080]
    environment: {clear: {A: "1"}}
    proxy: {app_port: 8080}
`;

/** `.jiji/deploy.yml` and the app. */
export async function writeJiji(
  folder: string,
  addresses: readonly string[],
  services = ONE_SERVICE,
): Promise<void> {
  await writeApp(folder);
  await Deno.mkdir(`${folder}/.jiji`, { recursive: true });
  const servers = addresses.map((address, index) => `  s${index + 1}: {host: ${address}}\n`);
  await Deno.writeTextFile(
    `${folder}/.jiji/deploy.yml`,
    `project: bench\nbuilder: {engine: docker}\nservers:\n${
      servers.join("")
    }services:\n${services}`,
  );
}

/** `config/deploy.yml`, secrets and the app, as Kamal 2.11 wants them. */
export async function writeKamal(folder: string, addresses: readonly string[]): Promise<void> {
  await writeApp(folder);
  await Deno.mkdir(`${folder}/config`, { recursive: true });
  await Deno.mkdir(`${folder}/.kamal`, { recursive: true });
  await Deno.writeTextFile(`${folder}/.kamal/secrets`, "");
  await Deno.writeTextFile(
    `${folder}/config/deploy.yml`,
    `service: bench
image: bench
servers:
  web:
    hosts:
${addresses.map((address) => `      - ${address}\n`).join("")}registry:
  server: ${KAMAL_REGISTRY}
builder:
  arch: amd64
  context: app
env:
  clear: {A: "1"}
proxy:
  app_port: 8080
`,
  );
}
