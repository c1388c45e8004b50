/** Where things lie inside the sandbox of an effect. */
export const INSIDE = {
  build: "/build",
  checkout: "/build/checkout",
  configuration: "/run/configuration.json",
  /** A folder with a file for each secret, and all of them as one file, at both places at which effects are known to look. */
  secrets: "/run/secrets",
  secretsJson: "/run/secrets.json",
  agentSecretsJson: "/secrets/secrets.json",
} as const;

/** What a sandbox tells its effect of the run. `facts` are the `PLUMULE_…` variables. */
export type EffectSetting = {
  /** Folder of the Nix store, of which every path in a derivation begins. */
  store: string;
  apiBaseUrl: string;
  projectId: string;
  /** `site/owner/repository`. */
  projectPath: string;
  facts: Readonly<Record<string, string>>;
};

/**
 * The environment of an effect as hercules-ci-agent makes it (Hercules/Effect.hs): defaults, then what the derivation says, then what nobody may
 * change. In `passAsFile` named values are not in it; `files` holds them, by their paths inside.
 */
export function effectEnvironment(
  { store, apiBaseUrl, projectId, projectPath, facts }: EffectSetting,
  derivation: Readonly<Record<string, string>>,
): { env: Record<string, string>; files: Record<string, string> } {
  const env: Record<string, string> = {
    PATH: "/path-not-set",
    HOME: "/homeless-shelter",
    NIX_STORE: store,
    NIX_BUILD_CORES: "1",
    NIX_REMOTE: "daemon",
    IN_HERCULES_CI_EFFECT: "true",
    HERCULES_CI_API_BASE_URL: apiBaseUrl,
    HERCULES_CI_PROJECT_ID: projectId,
    HERCULES_CI_PROJECT_PATH: projectPath,
    HERCULES_CI_SECRETS_JSON: INSIDE.secretsJson,
    ...derivation,
    ...facts,
    NIX_BUILD_TOP: INSIDE.build,
    TMPDIR: INSIDE.build,
    TMP: INSIDE.build,
    TEMP: INSIDE.build,
    TEMPDIR: INSIDE.build,
    NIX_LOG_FD: "2",
    TERM: "xterm-256color",
  };
  const files: Record<string, string> = {};
  const names = (derivation["passAsFile"] ?? "").split(/\s+/).filter((name) => derivation[name] !== undefined);
  for (const [at, name] of names.entries()) {
    const path = `${INSIDE.build}/.attr-${at}`;
    files[path] = derivation[name] ?? "";
    env[`${name}Path`] = path;
    delete env[name];
  }
  return { env, files };
}

/** The environment of a script that applies or plans: that of the job's scripts, with what it finds inside. */
export function scriptEnvironment(
  job: Readonly<Record<string, string>>,
  { apiBaseUrl }: Pick<EffectSetting, "apiBaseUrl">,
  { outputs, drv }: { outputs: readonly string[]; drv: string | null },
): Record<string, string> {
  const bins = outputs.map((path) => `${path}/bin`);
  return {
    ...job,
    PATH: [...bins, job["PATH"] ?? ""].join(":"),
    HOME: INSIDE.build,
    TMPDIR: INSIDE.build,
    HERCULES_CI_API_BASE_URL: apiBaseUrl,
    HERCULES_CI_SECRETS_JSON: INSIDE.secretsJson,
    PLUMULE_SECRETS: INSIDE.secrets,
    ...(outputs[0] === undefined ? {} : { PLUMULE_OUT: outputs[0] }),
    ...(drv === null ? {} : { PLUMULE_EFFECT: drv }),
    ...(job["PLUMULE_CONFIGURATION"] === undefined ? {} : { PLUMULE_CONFIGURATION: INSIDE.configuration }),
  };
}
