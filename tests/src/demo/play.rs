use super::stage::{SERVICE, Stage};

/// Says how to play with what is running.
pub(super) fn invite(stage: &Stage) {
    let lbd = &stage.lbd;
    println!(
        r#"
Everything goes on running. From another shell, as root (bash, say):

  LAB={lab}
  CLIENT="nsenter --net=/run/netns/$LAB-client-1"
  BACKEND="nsenter --net=/run/netns/$LAB-backend-4"
  BALANCER="nsenter --net=/run/netns/$LAB-lb"
  LBCTL="{lbctl} --socket {socket}"

  # a request, over IPv4 and over IPv6; load, for ten seconds
  $CLIENT curl -s http://{vip}/
  $CLIENT curl -s http://{vip6}/
  $CLIENT wrk -t2 -c64 -d10s http://{vip}/

  # what an operator does
  $LBCTL status
  $LBCTL backend list --service {SERVICE}
  $LBCTL backend set {SERVICE} backend-1 --weight 8
  $LBCTL backend drain {SERVICE} backend-2
  $LBCTL backend enable {SERVICE} backend-2
  $LBCTL conntrack list --limit 10
  $LBCTL stats

  # a server dies, is found down, and comes back
  kill -9 $(ip netns pids $LAB-backend-4)
  $BACKEND {nginx} &

  # the daemon dies, nobody notices, and it comes back
  kill -9 {pid}
  $BALANCER {program} --config {config} &

Ctrl-C here ends all of it and removes it."#,
        lab = stage.lab.name(),
        lbctl = stage.binaries.lbctl().display(),
        socket = lbd.socket().display(),
        vip = stage.vip(),
        vip6 = stage.vip6(),
        nginx = stage.backends[3].command_line(),
        pid = lbd
            .id()
            .map_or_else(|| "PID".to_owned(), |id| id.to_string()),
        program = stage.binaries.lbd().display(),
        config = lbd.config_path().display(),
    );
}
