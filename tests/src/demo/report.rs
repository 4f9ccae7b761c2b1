use std::{
    fmt::Display,
    io::{self, Write},
    time::Instant,
};

use super::table::Table;

/// What is printed, and what was claimed.
pub(super) struct Report {
    began: Instant,
    acts: u32,
    claims: Vec<Claim>,
    /// The last thing that was printed was a paragraph, from which the next one stands apart.
    apart: bool,
    /// The last thing that was printed was a heading.
    after_heading: bool,
}

struct Claim {
    act: u32,
    claim: String,
    measured: String,
    holds: bool,
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            acts: 0,
            claims: Vec::new(),
            apart: false,
            after_heading: false,
        }
    }

    /// Begins the next act.
    pub(super) fn act(&mut self, title: &str) {
        self.acts += 1;
        self.heading(&format!("{}. {title}", self.acts));
    }

    /// Says what is being done, before it is: some of it takes seconds.
    pub(super) fn progress(&mut self, what: impl Display) {
        self.begin_line(what);
        println!();
    }

    /// [`progress`](Self::progress) without an end of the line.
    pub(super) fn begin_line(&mut self, what: impl Display) {
        if std::mem::take(&mut self.apart) {
            println!();
        }
        self.after_heading = false;
        print!("[{:4.1} s] {what}", self.began.elapsed().as_secs_f32());
        self.continue_line("");
    }

    pub(super) fn continue_line(&mut self, what: impl Display) {
        print!("{what}");
        // Whoever does not read on ends the demo by the next line.
        let _ = io::stdout().flush();
    }

    pub(super) fn end_line(&mut self) {
        println!();
    }

    /// Text or a table, set off by empty lines.
    pub(super) fn paragraph(&mut self, what: impl Display) {
        // The rule below a heading sets off enough.
        if !std::mem::take(&mut self.after_heading) {
            println!();
        }
        println!("{}", what.to_string().trim_end());
        self.apart = true;
    }

    /// Something that the demo is to show, and what was measured.
    pub(super) fn claim(
        &mut self,
        claim: impl Into<String>,
        measured: impl Into<String>,
        holds: bool,
    ) {
        self.claims.push(Claim {
            act: self.acts,
            claim: claim.into(),
            measured: measured.into(),
            holds,
        });
    }

    /// Prints the claims of all acts; true when all of them hold.
    pub(super) fn close(&mut self) -> bool {
        self.heading("Summary");
        let mut table = Table::new(&[">ACT", "CLAIM", "MEASURED", ""]);
        for claim in &self.claims {
            table.row([
                claim.act.to_string(),
                claim.claim.clone(),
                claim.measured.clone(),
                if claim.holds { "ok" } else { "NOT ok" }.to_owned(),
            ]);
        }
        self.paragraph(table);
        let broken = self.claims.iter().filter(|claim| !claim.holds).count();
        let verdict = match broken {
            0 => "all ok".to_owned(),
            _ => format!("{broken} NOT ok"),
        };
        self.paragraph(format!(
            "{} claims, {verdict}, in {:.0} s",
            self.claims.len(),
            self.began.elapsed().as_secs_f32()
        ));
        broken == 0
    }

    fn heading(&mut self, heading: &str) {
        println!("\n{heading}\n{}", "-".repeat(heading.chars().count()));
        self.apart = false;
        self.after_heading = true;
    }
}
