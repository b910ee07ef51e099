//! The code blocks of the documentation, and how each of them is known to work.
//!
//! A block ```` ```yaml NAME ````, or of another language, is a file of that name. A block ```` ```console ```` shows
//! commands, after `$ `, and what they print. Where the commands of a block are not run as the page is followed, a
//! comment above the block says who runs them (a script, or a page that is followed and shows the same), or why nobody
//! does:
//!
//! ```text
//! <!-- run by .ci/run -->
//! <!-- not run: needs a GPU -->
//! ```

/// Pages that are followed from begin to end on a cluster, by `tests/cluster/guide.rs`.
pub(crate) const FOLLOWED: [&str; 8] = [
    "docs/first-run.md",
    "docs/your-script.md",
    "docs/images.md",
    "docs/bundles.md",
    "docs/checkpoints.md",
    "docs/jobs.md",
    "docs/codalab.md",
    "docs/cli.md",
];

/// What stands between two fences.
#[derive(Debug)]
pub(crate) struct Block {
    /// Number of its first line in the page.
    pub(crate) line: usize,
    /// `console`, `yaml`, ...
    pub(crate) language: String,
    /// What stands after the language.
    pub(crate) name: Option<String>,
    pub(crate) mark: Option<Mark>,
    pub(crate) text: String,
}

/// The comment above a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    NotRun(String),
    RunBy(String),
}

pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = vec![];
    let mut mark = None;
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(label) = line.strip_prefix("```") else {
            mark = Mark::of(line).or(mark.filter(|_| line.is_empty()));
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let text = inside.flat_map(|line| [line, "\n"]).collect();
        let (language, name) = label.split_once(' ').unwrap_or((label, ""));
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        blocks.push(Block { line: number + 1, language: language.to_owned(), name, mark: mark.take(), text });
    }
    blocks
}

impl Block {
    /// The page's follower runs it.
    pub(crate) fn is_followed(&self) -> bool {
        self.language == "console" && self.mark.is_none()
    }
}

impl Mark {
    fn of(line: &str) -> Option<Self> {
        let words = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
        let not_run = words.strip_prefix("not run: ").map(|why| Self::NotRun(why.to_owned()));
        not_run.or_else(|| words.strip_prefix("run by ").map(|file| Self::RunBy(file.to_owned())))
    }
}
