//! The table of a sweep, as docs/crash-sweep.md has it.

use std::collections::BTreeMap;
use std::fmt;

use crate::cases::Case;
use crate::scenarios::Scenario;

#[derive(Default)]
pub struct Table {
    /// How many requests an undisturbed run makes.
    requests: BTreeMap<Scenario, usize>,
    columns: Vec<String>,
    cells: BTreeMap<(Scenario, String), Cell>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    cases: usize,
    /// The request was not made this time: nothing went wrong.
    not_met: usize,
    wrong: usize,
}

impl Table {
    pub fn requests(&mut self, scenario: Scenario, count: usize) {
        self.requests.insert(scenario, count);
    }

    pub fn add(&mut self, case: &Case, is_met: bool, is_right: bool) {
        if !self.columns.contains(&case.column) {
            self.columns.push(case.column.clone());
        }
        let cell = self.cells.entry((case.scenario, case.column.clone())).or_default();
        cell.cases += 1;
        cell.not_met += usize::from(!is_met);
        cell.wrong += usize::from(!is_right);
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cases - self.not_met - self.wrong, self.cases - self.not_met)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = self.columns.clone();
        columns.sort_by_key(|column| (column.starts_with("a third"), column.clone()));
        writeln!(f, "| scenario | requests | {} |", columns.join(" | "))?;
        writeln!(f, "|---|---|{}", "---|".repeat(columns.len()))?;
        let mut all = vec![Cell::default(); columns.len()];
        for (scenario, requests) in &self.requests {
            write!(f, "| {} | {requests} |", scenario.name())?;
            for (column, all) in columns.iter().zip(&mut all) {
                let cell = self.cells.get(&(*scenario, column.clone())).copied().unwrap_or_default();
                write!(f, " {cell} |")?;
                all.cases += cell.cases;
                all.not_met += cell.not_met;
                all.wrong += cell.wrong;
            }
            writeln!(f)?;
        }
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        writeln!(f, "| all | {} | {} |", self.requests.values().sum::<usize>(), all.join(" | "))
    }
}
