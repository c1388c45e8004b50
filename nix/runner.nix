# Runners of plumule as services, one per instance. The settings are those of `plumule runner config`.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) types;
  inherit (import ./options.nix { inherit lib; }) each option package;
  cfg = config.services.plumule-runner;
  unit = name: "plumule-runner-${name}";
in
{
  options.services.plumule-runner.instances = each {
    inherit package;
    enable = option types.bool true "Whether it runs.";
    settings = option types.attrs { } "What its settings file has: `url`, `namespace`, `capacity`, `labels`, …";
    registrationFile = option (types.nullOr types.str) null "File of the one-time token, outside the store. It may be emptied afterwards, but has to stay.";
    user = option types.str "plumule" "Whom it and its jobs run as.";
    path = option (types.listOf types.package) [ ] "Programs for jobs, beside git, Nix and bash.";
  } "Runners of this machine by name.";

  config = {
    users.users = lib.mapAttrs' (_: instance: {
      name = instance.user;
      value = {
        isSystemUser = true;
        group = instance.user;
      };
    }) cfg.instances;
    users.groups = lib.mapAttrs' (_: instance: {
      name = instance.user;
      value = { };
    }) cfg.instances;
    systemd.services = lib.mapAttrs' (name: instance: {
      name = unit name;
      value = {
        description = "plumule runner ${name}";
        enable = instance.enable;
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        after = [
          "network-online.target"
          "nix-daemon.socket"
        ];
        startLimitIntervalSec = 0;
        path = [
          pkgs.bash
          pkgs.bubblewrap
          pkgs.coreutils
          pkgs.git
          pkgs.nix
          pkgs.util-linux
          pkgs.systemd
        ]
        ++ instance.path;
        serviceConfig = {
          Type = "notify";
          NotifyAccess = "all";
          WatchdogSec = "10min";
          User = instance.user;
          StateDirectory = unit name;
          StateDirectoryMode = "0700";
          ExecStart = lib.concatStringsSep " " [
            "${instance.package}/bin/plumule"
            "runner"
            "start"
            "--config"
            "${pkgs.writeText "${unit name}.json" (builtins.toJSON ({ inherit name; } // instance.settings))}"
            "--state"
            "/var/lib/${unit name}"
          ];
          # A stop is for the runner alone: its runs go on, and the next start follows them.
          KillMode = "process";
          KillSignal = "SIGHUP";
          TimeoutStopSec = 30;
          Restart = "on-failure";
          RestartSec = 5;
          RestartPreventExitStatus = "2 3 5 76";
          Delegate = true;
          DelegateSubgroup = "runner";
          OOMPolicy = "continue";
        }
        // lib.optionalAttrs (instance.registrationFile != null) {
          LoadCredential = "registration:${instance.registrationFile}";
        };
      };
    }) cfg.instances;
  };
}
