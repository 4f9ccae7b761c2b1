use super::conntrack::table_use;
use crate::{
    api::{InterfaceMode, StatusInfo},
    cli::{humane::seconds, table::Table},
};

pub(in crate::cli) fn status(status: &StatusInfo) -> String {
    let mut text = format!(
        "lbd {} (pid {}), up {}, configuration {}\n\n",
        status.version,
        status.pid,
        seconds(status.uptime_s),
        status.config.display()
    );
    if !status.interfaces.is_empty() {
        let mut table = Table::new(&["INTERFACE", "MODE", "NOTE"]);
        for interface in &status.interfaces {
            let mode = match interface.mode {
                InterfaceMode::Native => "native",
                InterfaceMode::Generic => "generic",
            };
            table.row([
                interface.name.clone(),
                mode.to_owned(),
                interface.note.clone(),
            ]);
        }
        text += &format!("{table}\n");
    }
    text += &format!(
        "services     {}\nbackends     {}, {} healthy\nconnections  {}\n",
        status.services,
        status.backends,
        status.healthy,
        table_use(&status.conntrack)
    );
    if !status.warnings.is_empty() {
        text.push('\n');
        for warning in &status.warnings {
            text += &format!("warning: {warning}\n");
        }
    }
    text
}
