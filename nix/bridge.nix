# The bridge: a service beside each Radicle node, and a post-receive hook in each bare repository, which tell the broker of every push.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) types;
  inherit (import ./options.nix { inherit lib; }) broker each option package required;
  cfg = config.services.plumule-bridge;
  hook =
    repository:
    pkgs.writeShellScript "plumule-post-receive" ''
      export PLUMULE_URL=${lib.escapeShellArg repository.url}
      export PLUMULE_NAMESPACE=${lib.escapeShellArg repository.namespace}
      export PLUMULE_KEY=${lib.escapeShellArg repository.keyFile}
      export PLUMULE_HOOK=${lib.escapeShellArg repository.hook}
      exec ${cfg.package}/bin/plumule-post-receive
    '';
  repeated = flag: lib.concatMap (value: [ flag value ]);
  flags =
    node:
    [ "--url" node.url "--namespace" node.namespace "--hook" node.hook "--rad-home" node.radHome ]
    ++ lib.optionals (node.keyFile != null) [ "--key" node.keyFile ]
    ++ repeated "--repo" node.repositories
    ++ repeated "--follow" node.follow
    ++ repeated "--fetch-from" node.fetchFrom;
in
{
  options.services.plumule-bridge = {
    inherit package;
    nodes = each (
      broker "radicle"
      // {
        user = option types.str "radicle" "The user of the node, whose storage and socket it reads.";
        radHome = option types.str "/var/lib/radicle" "The node's home.";
        keyFile = option (types.nullOr types.str) null "File of the key that signs; one of its own is made when there is none.";
        repositories = option (types.listOf types.str) [ ] "Repositories that are told of, rad:z…; by default every public one.";
        follow = option (types.listOf types.str) [ ] "Whose pushes are told, did:key:…; by default everybody's.";
        fetchFrom = option (types.listOf types.str) [ ] "Seeds from which runners without a node fetch public repositories.";
      }
    ) "Radicle nodes of this machine by any name.";
    repositories = each (
      broker "git"
      // {
        keyFile = required types.str "File of the Ed25519 key that signs pushes, readable by whoever receives them alone.";
      }
    ) "Bare repositories of this machine by path.";
  };

  config.systemd.services = lib.mapAttrs' (name: node: {
    name = "plumule-bridge-${name}";
    value = {
      description = "plumule bridge ${name}";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "radicle-node.service"
      ];
      startLimitIntervalSec = 0;
      path = [ pkgs.git ];
      serviceConfig = {
        Type = "exec";
        User = node.user;
        StateDirectory = "plumule-bridge-${name}";
        StateDirectoryMode = "0700";
        ExecStart = lib.escapeShellArgs (
          [ "${cfg.package}/bin/plumule" "bridge" "start" ]
          ++ flags node
          ++ [ "--state" "/var/lib/plumule-bridge-${name}" ]
        );
        Restart = "on-failure";
        RestartSec = 5;
        RestartPreventExitStatus = "2 5";
        NoNewPrivileges = true;
        PrivateTmp = true;
        ProtectSystem = "strict";
      };
    };
  }) cfg.nodes;

  config.systemd.tmpfiles.rules = lib.mapAttrsToList (
    path: repository: "L+ ${path}/hooks/post-receive - - - - ${hook repository}"
  ) cfg.repositories;
}
