use crate::{
    api::{ConnectionInfo, ConntrackStats},
    cli::{
        humane::{count, percent, seconds},
        table::Table,
    },
};

pub(in crate::cli) fn connections(list: &[ConnectionInfo], matching: Option<u64>) -> String {
    let mut table = Table::new(&[
        "SERVICE", "BACKEND", "CLIENT", "VIP", "STATE", ">AGE", ">IDLE",
    ]);
    for connection in list {
        table.row([
            connection.service.to_string(),
            connection
                .backend
                .as_ref()
                .map_or_else(|| "(removed)".to_owned(), ToString::to_string),
            connection.client.to_string(),
            connection.vip.to_string(),
            connection.state.clone(),
            seconds(connection.age_s),
            seconds(connection.idle_s),
        ]);
    }
    let mut text = table.to_string();
    let more = matching
        .unwrap_or_default()
        .saturating_sub(list.len() as u64);
    if more > 0 {
        text += &format!("and {more} more; --limit shows more of them\n");
    }
    text
}

pub(in crate::cli) fn conntrack_stats(stats: &ConntrackStats) -> String {
    format!(
        "capacity     {}\n\
         used         {} ({})\n\
         established  {}\n\
         half-open    {}\n\
         closing      {}\n\
         ended        {}\n\
         untracked    {} since the start\n",
        stats.capacity,
        stats.used,
        percent(stats.used, stats.capacity),
        stats.established,
        stats.half_open,
        stats.closing,
        stats.ended,
        stats.untracked_total
    )
}

/// How full the connection table is, on one line.
pub(super) fn table_use(stats: &ConntrackStats) -> String {
    let ended = match stats.ended {
        0 => String::new(),
        ended => format!(", {} ended", count(ended)),
    };
    format!(
        "{} of {} ({}): {} established, {} half-open, {} closing{ended}",
        count(stats.used),
        count(stats.capacity),
        percent(stats.used, stats.capacity),
        count(stats.established),
        count(stats.half_open),
        count(stats.closing)
    )
}
