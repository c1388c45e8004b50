# The bridge: a service beside each Radicle node, and a post-receive hook in each bare repository, which tell the broker of every push.
{
  config,
  lib,
  pkgs,
  ...
}:
let
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
  each = flag: lib.concatMap (value: [ flag value ]);
  flags =
    node:
    [ "--url" node.url "--namespace" node.namespace "--hook" node.hook "--rad-home" node.radHome ]
    ++ lib.optionals (node.keyFile != null) [ "--key" node.keyFile ]
    ++ each "--repo" node.repositories
    ++ each "--follow" node.follow
    ++ each "--fetch-from" node.fetchFrom;
in
{
  options.services.plumule-bridge = {
    nodes = lib.mkOption {
      default = { };
      description = "Radicle nodes of this machine by any name.";
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            url = lib.mkOption {
              type = lib.types.str;
              description = "Origin of the broker.";
            };
            namespace = lib.mkOption {
              type = lib.types.str;
              description = "Namespace at the broker.";
            };
            hook = lib.mkOption {
              type = lib.types.str;
              default = "radicle";
              description = "Id of the hook at the broker.";
            };
            user = lib.mkOption {
              type = lib.types.str;
              default = "radicle";
              description = "The user of the node, whose storage and socket it reads.";
            };
            radHome = lib.mkOption {
              type = lib.types.str;
              default = "/var/lib/radicle";
              description = "The node's home.";
            };
            keyFile = lib.mkOption {
              type = lib.types.nullOr lib.types.str;
              default = null;
              description = "File of the key that signs; one of its own is made when there is none.";
            };
            repositories = lib.mkOption {
              type = lib.types.listOf lib.types.str;
              default = [ ];
              description = "Repositories that are told of, rad:z…; by default every public one.";
            };
            follow = lib.mkOption {
              type = lib.types.listOf lib.types.str;
              default = [ ];
              description = "Whose pushes are told, did:key:…; by default everybody's.";
            };
            fetchFrom = lib.mkOption {
              type = lib.types.listOf lib.types.str;
              default = [ ];
              description = "Seeds from which runners without a node fetch public repositories.";
            };
          };
        }
      );
    };
    package = lib.mkOption {
      type = lib.types.package;
      description = "plumule, for instance `plumule.lib.package pkgs ./plumule.tgz`.";
    };
    repositories = lib.mkOption {
      default = { };
      description = "Bare repositories of this machine by path.";
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            url = lib.mkOption {
              type = lib.types.str;
              description = "Origin of the broker.";
            };
            namespace = lib.mkOption {
              type = lib.types.str;
              description = "Namespace at the broker.";
            };
            keyFile = lib.mkOption {
              type = lib.types.str;
              description = "File of the Ed25519 key that signs pushes, readable by whoever receives them alone.";
            };
            hook = lib.mkOption {
              type = lib.types.str;
              default = "git";
              description = "Id of the hook at the broker.";
            };
          };
        }
      );
    };
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
