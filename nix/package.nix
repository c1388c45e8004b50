# plumule from the tarball of `node scripts/pack.mjs`: plumule.lib.package pkgs ./plumule-0.1.0.tgz
pkgs: tarball:
pkgs.runCommand "plumule" { nativeBuildInputs = [ pkgs.makeWrapper ]; } ''
  mkdir -p $out/lib
  tar -xzf ${tarball} --strip-components=1 -C $out/lib
  makeWrapper ${pkgs.nodejs}/bin/node $out/bin/plumule --add-flags "--max-semi-space-size=1 $out/lib/bin/plumule.mjs"
  makeWrapper ${pkgs.nodejs}/bin/node $out/bin/plumule-post-receive --add-flags $out/lib/bin/post-receive.mjs
''
