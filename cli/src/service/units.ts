/** What a service is made from: the command that starts plumule, the file of settings, and the file of the registration token. */
export type ServicePlan = { command: readonly string[]; config: string; registration: string; user: string };

/**
 * A unit of systemd (systemd.service(5)). A stop is a SIGHUP to the runner alone, so that its runs go on and the next start follows them;
 * `NotifyAccess=all` because a helper speaks for Node; jobs have no socket to speak to. Codes after which a start changes nothing are not
 * tried again, all others are, for as long as the broker is away.
 */
export function systemdUnit({ command, config, registration, user }: ServicePlan): string {
  const start = [...command, "runner", "start", "--config", config, "--state", "/var/lib/plumule-runner"];
  return `[Unit]
Description=plumule runner
Wants=network-online.target
After=network-online.target nix-daemon.socket
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
WatchdogSec=10min
User=${user}
StateDirectory=plumule-runner
StateDirectoryMode=0700
# The one-time token. It is used once; the file may be emptied afterwards, but has to stay.
LoadCredential=registration:${registration}
ExecStart=${start.map(systemdWord).join(" ")}
KillMode=process
KillSignal=SIGHUP
TimeoutStopSec=30
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2 3 5 76
Delegate=yes
DelegateSubgroup=runner
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
`;
}

/** What the service of a bridge is made from: the command that starts plumule, the words after `bridge start`, and whom it runs as. */
export type BridgePlan = { command: readonly string[]; flags: readonly string[]; user: string };

/** A unit of systemd for a bridge. It waits for the node by itself, and nothing is lost while it does not run. */
export function bridgeUnit({ command, flags, user }: BridgePlan): string {
  const start = [...command, "bridge", "start", ...flags, "--state", "/var/lib/plumule-bridge"];
  return `[Unit]
Description=plumule bridge
Wants=network-online.target
After=network-online.target radicle-node.service
StartLimitIntervalSec=0

[Service]
Type=exec
User=${user}
StateDirectory=plumule-bridge
StateDirectoryMode=0700
ExecStart=${start.map(systemdWord).join(" ")}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2 5
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict

[Install]
WantedBy=multi-user.target
`;
}

/** A word of a command line as systemd reads it: specifiers and variables stay text. */
function systemdWord(word: string): string {
  const plain = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  return /[\s"'\\;]/.test(plain) ? `"${plain.replaceAll(/["\\]/g, "\\$&")}"` : plain;
}

/** A job of launchd (launchd.plist(5)) for a Mac: started at boot, and again when it failed. */
export function launchdPlist({ command, config, user }: ServicePlan): string {
  const state = "/usr/local/var/plumule-runner";
  const words = [...command, "runner", "start", "--config", config, "--state", state];
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>dev.plumule.runner</string>
  <key>UserName</key><string>${xmlText(user)}</string>
  <key>ProgramArguments</key>
  <array>
${words.map((word) => `    <string>${xmlText(word)}</string>`).join("\n")}
  </array>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
  <key>ThrottleInterval</key><integer>30</integer>
  <key>AbandonProcessGroup</key><true/>
  <key>ExitTimeOut</key><integer>30</integer>
  <key>StandardErrorPath</key><string>/usr/local/var/log/plumule-runner.log</string>
</dict>
</plist>
`;
}

function xmlText(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
