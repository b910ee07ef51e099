//! The helper's termination message, in bytes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::gpu::GpuFacts;
use super::record::Record;
use super::report::{Report, SKIPPED_NAME_MAX_BYTES};
use super::text::{beginning, one_line};
use crate::oci::Digest;

/// What the kubelet keeps of one termination message, in bytes (`MaxContainerTerminationMessageLength`).
pub const MESSAGE_MAX_BYTES: usize = 4096;

/// The first line of a termination message stays below this, so that a cut message still tells the ending.
pub const FIRST_LINE_MAX_BYTES: usize = 900;

/// Longest line of input digests in a termination message, in bytes: those of the 64 inputs that a run may have fit, and
/// the tails of what the command wrote keep a few hundred bytes.
pub const INPUTS_MAX_BYTES: usize = 64 * DIGEST_BYTES + 40;

/// A digest in that line: 32 bytes in base64url without padding.
const DIGEST_BYTES: usize = 43;

/// A decoded termination message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub report: Report,
    /// Digests of inputs that the helper looked up at registries or copied (`sha256:<hex>`), by the index of the input.
    pub input_digests: BTreeMap<usize, String>,
    /// Last part of stdout; valid UTF-8 without control characters but tab and newline.
    pub stdout_tail: String,
    /// Last part of stderr, likewise.
    pub stderr_tail: String,
}

impl Message {
    /// The termination message of `report` and the ends of what the command wrote, in any bytes: the first line is
    /// compact JSON below [`FIRST_LINE_MAX_BYTES`] (the last GPUs give way, then each `detail`), all of it at most [`MESSAGE_MAX_BYTES`].
    ///
    /// The tails share what is left: half for each, and what one does not need goes to the other.
    #[must_use]
    pub fn encode(report: &Report, stdout: &[u8], stderr: &[u8]) -> String {
        Self::encode_with_inputs(report, &BTreeMap::new(), stdout, stderr)
    }

    /// [`Message::encode`] with a line of digests of inputs, as many as [`INPUTS_MAX_BYTES`] hold.
    #[must_use]
    pub fn encode_with_inputs(
        report: &Report,
        input_digests: &BTreeMap<usize, String>,
        stdout: &[u8],
        stderr: &[u8],
    ) -> String {
        let inputs = inputs_line(input_digests);
        let mut report = Report {
            inputs_len: inputs.len(),
            stdout_len: MESSAGE_MAX_BYTES,
            stderr_len: MESSAGE_MAX_BYTES,
            ..report.clone()
        };
        if let Some(record) = &mut report.record {
            record.detail = one_line(&record.detail);
            record.gpus = record.gpus.as_ref().map(GpuFacts::readable);
        }
        if let Some(not_saved) = &mut report.not_saved {
            not_saved.detail = one_line(&not_saved.detail);
        }
        if let Some(saved) = &mut report.saved {
            let short = |name: &String| beginning(&one_line(name), SKIPPED_NAME_MAX_BYTES);
            saved.skipped_names = saved.skipped_names.iter().map(short).take(SKIPPED_NAMES).collect();
        }
        let room = MESSAGE_MAX_BYTES.saturating_sub(first_line(&mut report).len() + inputs.len());

        let (stdout, stderr) = (readable_tail(stdout), readable_tail(stderr));
        let half = room / 2;
        let stdout = last_bytes(&stdout, half.max(room.saturating_sub(stderr.len())));
        let stderr = last_bytes(&stderr, room - stdout.len());
        report.stdout_len = stdout.len();
        report.stderr_len = stderr.len();
        first_line(&mut report) + &inputs + stdout + stderr
    }

    /// Reads a message back, also one that was cut short anywhere after its first line. None: it is no such message.
    #[must_use]
    pub fn decode(message: &str) -> Option<Message> {
        let (line, rest) = message.split_once('\n').unwrap_or((message, ""));
        let report: Report = serde_json::from_str(line).ok()?;
        let (inputs, rest) = rest.split_at(rest.floor_char_boundary(report.inputs_len));
        let (stdout, rest) = rest.split_at(rest.floor_char_boundary(report.stdout_len));
        let (stderr, _) = rest.split_at(rest.floor_char_boundary(report.stderr_len));
        Some(Message {
            input_digests: digests_in(inputs),
            stdout_tail: stdout.to_owned(),
            stderr_tail: stderr.to_owned(),
            report,
        })
    }
}

/// The line of digests with its newline; empty without digests. Of inputs that follow each other only the first index is
/// there: `0 <digest><digest>;7 <digest>`. Versions before wrote JSON, `{"0":"sha256:<hex>"}`, in which 26 had room.
fn inputs_line(digests: &BTreeMap<usize, String>) -> String {
    let mut line = String::new();
    let mut next = None;
    // All that we look up or copy is hashed by us, with SHA-256.
    for (index, digest) in digests.iter().filter_map(|(index, digest)| Some((*index, Digest::parse(digest).ok()?))) {
        let digest = BASE64.encode(digest.bytes());
        let entry = match next {
            Some(next) if next == index => digest,
            Some(_) => format!(";{index} {digest}"),
            None => format!("{index} {digest}"),
        };
        if line.len() + entry.len() + "\n".len() > INPUTS_MAX_BYTES {
            break;
        }
        line.push_str(&entry);
        next = Some(index + 1);
    }
    if !line.is_empty() {
        line.push('\n');
    }
    line
}

/// The digests in a line that may have been cut short: those that are whole.
fn digests_in(line: &str) -> BTreeMap<usize, String> {
    let line = line.trim_end();
    if line.starts_with('{') {
        return digests_in_json(line);
    }
    let group = |group: &str| {
        let (first, digests) = group.split_once(' ')?;
        let first: usize = first.parse().ok()?;
        let whole = digests.as_bytes().chunks_exact(DIGEST_BYTES).map_while(|digest| BASE64.decode(digest).ok());
        let digests = whole.map_while(|hash| Some(Digest::new(hash.try_into().ok()?).to_string()));
        Some(digests.enumerate().map(move |(after, digest)| (first.saturating_add(after), digest)).collect::<Vec<_>>())
    };
    line.split(';').filter_map(group).flatten().collect()
}

fn digests_in_json(line: &str) -> BTreeMap<usize, String> {
    let whole = |text: &str| serde_json::from_str(text).ok();
    whole(line)
        .or_else(|| whole(&format!("{line}}}")))
        .or_else(|| whole(&format!("{}}}", line.rsplit_once(',')?.0)))
        .unwrap_or_default()
}

/// As many entries that an output lacks are named.
const SKIPPED_NAMES: usize = 3;

/// The first line with its newline; leaves GPUs and names of what is not saved out, and shortens the details, until it
/// fits.
fn first_line(report: &mut Report) -> String {
    loop {
        let mut line = serde_json::to_string(report).unwrap_or_default();
        line.push('\n');
        let excess = (line.len() + 1).saturating_sub(FIRST_LINE_MAX_BYTES);
        // The bundle lists them, too.
        if excess > 0
            && report.record.as_ref().is_none_or(|record| record.gpus.is_none())
            && report.saved.as_mut().is_some_and(|saved| saved.skipped_names.pop().is_some())
        {
            continue;
        }
        match &mut report.record {
            Some(Record { gpus: gpus @ Some(_), .. }) if excess > 0 => {
                if !gpus.as_mut().is_some_and(GpuFacts::shorten) {
                    *gpus = None;
                }
            }
            Some(record) if excess > 0 && !record.detail.is_empty() => shorten(&mut record.detail, excess),
            _ => match &mut report.not_saved {
                Some(not_saved) if excess > 0 && !not_saved.detail.is_empty() => {
                    shorten(&mut not_saved.detail, excess);
                }
                _ => return line,
            },
        }
    }
}

/// Shortens a text so that it takes `excess` bytes less of JSON, or half of that: a byte of text is at most two of JSON
/// here, because control characters are gone.
fn shorten(text: &mut String, excess: usize) {
    *text = beginning(text, text.len().saturating_sub(excess.div_ceil(2)));
}

/// The end of some output as text: at least what a message can hold, if there is as much.
fn readable_tail(output: &[u8]) -> String {
    let tail = output.get(output.len().saturating_sub(MESSAGE_MAX_BYTES)..).unwrap_or_default();
    let cut = tail.len() < output.len();
    // A character that the cut went through would show as up to three replacement characters.
    let begin = if cut { tail.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count() } else { 0 };
    let text = String::from_utf8_lossy(tail.get(begin..).unwrap_or_default());
    // Progress bars return to the line's start; each of their states becomes a line.
    text.replace("\r\n", "\n")
        .chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\r' => '\n',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

fn last_bytes(text: &str, most: usize) -> &str {
    let begin = text.ceil_char_boundary(text.len().saturating_sub(most));
    text.get(begin..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::DETAIL_MAX_BYTES;
    use crate::contract::{Cause, GpuModel, MissingRecord, NotSaved, SaveFailure, Saved, Usage};
    use proptest::prelude::*;

    fn report(detail: &str) -> Report {
        let usage = Usage {
            wall_ms: u64::MAX,
            cpu_user_ms: u64::MAX,
            cpu_system_ms: u64::MAX,
            memory_peak_bytes: u64::MAX,
            oom_kills: u64::MAX,
            oom_kills_from_outside: u64::MAX,
        };
        let record = Record {
            cause: Some(Cause::CommandNotExecutable),
            exit_code: Some(i32::MIN),
            signal: Some(i32::MIN),
            asked_to_stop: true,
            unkillable: true,
            started_at_ms: Some(i64::MIN),
            staging_ms: u64::MAX,
            finished_at_ms: i64::MIN,
            usage,
            gpus: None,
            detail: detail.to_owned(),
        };
        Report {
            record: Some(record),
            missing: Some(MissingRecord::NeverStarted),
            files: u64::MAX,
            bytes: u64::MAX,
            ..Report::default()
        }
    }

    fn digest(index: usize) -> String {
        format!("sha256:{index:064x}")
    }

    fn digests(many: usize) -> BTreeMap<usize, String> {
        (0..many).map(|index| (index * 3, digest(index))).collect()
    }

    /// What is longest of what the helper says of saving.
    fn with_saving(report: Report, saved: bool, detail: &str) -> Report {
        let (saved, not_saved) = if saved {
            let saved = Saved {
                digest: digest(1),
                pushed_bytes: u64::MAX,
                skipped: u64::MAX,
                withheld: u64::MAX,
                damaged: u64::MAX,
                skipped_names: vec![detail.to_owned(); 4],
                mountable: true,
            };
            (Some(saved), None)
        } else {
            (None, Some(NotSaved { failure: SaveFailure::SaveDeadlineExceeded, detail: detail.to_owned() }))
        };
        Report { saved, not_saved, ..report }
    }

    fn facts(devices: usize) -> GpuFacts {
        let uuids = (0..devices).map(|i| format!("GPU-00000000-0000-0000-0000-{i:012}")).collect();
        GpuFacts {
            driver: Some("570.86.15".to_owned()),
            models: vec![GpuModel { name: Some("NVIDIA H200".to_owned()), uuids }],
        }
    }

    #[test]
    fn all_inputs_that_were_found_to_be_files_too_late_are_told() {
        let late_files: std::collections::BTreeSet<usize> = (0..64).collect();
        let told = Report { late_files: late_files.clone(), ..report(&"x".repeat(DETAIL_MAX_BYTES)) };
        let text = Message::encode(&told, b"out", b"err");
        assert!(text.find('\n').unwrap() < FIRST_LINE_MAX_BYTES);
        assert_eq!(Message::decode(&text).unwrap().report.late_files, late_files);
    }

    #[test]
    fn all_gpus_of_a_usual_node_fit_and_of_too_many_the_first() {
        let told = |devices, detail: &str| {
            let mut report = report(detail);
            if let Some(record) = &mut report.record {
                record.usage = Usage { wall_ms: 1_000_000_000, memory_peak_bytes: 1 << 40, ..Usage::default() };
                record.gpus = Some(facts(devices));
            }
            let text = Message::encode(&report, b"out", b"err");
            assert!(text.find('\n').unwrap() < FIRST_LINE_MAX_BYTES);
            let record = Message::decode(&text).unwrap().report.record.unwrap();
            assert_eq!(record.detail, detail, "what the user must read does not give way to devices");
            record.gpus
        };
        assert_eq!(told(8, ""), Some(facts(8)));
        let some = told(64, "why ".repeat(49).trim_end()).unwrap();
        assert_eq!(some.driver, facts(1).driver);
        assert!((2..64).contains(&some.models[0].uuids.len()), "{some:?}");
        assert_eq!(some.models[0].uuids, facts(64).models[0].uuids[..some.models[0].uuids.len()]);
    }

    #[test]
    fn gpus_that_somebody_made_up_do_no_harm() {
        let mut report = report("why");
        let name = Some("\u{1b}\"".repeat(3000));
        let models =
            vec![GpuModel { name: name.clone(), uuids: vec![] }, GpuModel { name, uuids: vec!["\n".to_owned()] }];
        report.record.as_mut().unwrap().gpus = Some(GpuFacts { driver: Some("\u{0}".repeat(2000)), models });
        let text = Message::encode(&report, b"", b"");
        assert!(text.find('\n').unwrap() < FIRST_LINE_MAX_BYTES);
        assert_eq!(Message::decode(&text).unwrap().report.record.unwrap().detail, "why");
    }

    fn readable(text: &str) -> bool {
        text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t')
    }

    /// But for the ellipsis where it was cut.
    fn begins_with(whole: &str, begin: &str) -> bool {
        whole.starts_with(begin) || begin.strip_suffix("...").is_some_and(|begin| whole.starts_with(begin))
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            detail in "(\\PC|[\"\\\\\n\u{0}]){0,300}",
            not_saved in "(\\PC|[\"\\\\\n\u{0}]){0,300}",
            saved in any::<bool>(),
            inputs in 0usize..70,
            stdout in prop::collection::vec(any::<u8>(), 0..6000),
            stderr in prop::collection::vec(any::<u8>(), 0..6000),
        ) {
            let report = with_saving(report(&detail), saved, &not_saved);
            let text = Message::encode_with_inputs(&report, &digests(inputs), &stdout, &stderr);
            prop_assert!(text.len() <= MESSAGE_MAX_BYTES);
            prop_assert!(text.find('\n').unwrap() < FIRST_LINE_MAX_BYTES);
            let message = Message::decode(&text).unwrap();
            prop_assert!(message.report.inputs_len <= INPUTS_MAX_BYTES);
            prop_assert_eq!(&message.input_digests, &digests(inputs.min(message.input_digests.len())));
            prop_assert!(message.input_digests.len() == inputs || message.input_digests.len() > 56);
            let names = |report: &Report| report.saved.clone().map(|saved| saved.skipped_names).unwrap_or_default();
            let (kept, given) = (names(&message.report), names(&report));
            prop_assert!(kept.len() <= 3 && kept.iter().all(|name| name.len() <= SKIPPED_NAME_MAX_BYTES));
            prop_assert!(kept.iter().zip(&given).all(|(kept, given)| begins_with(&one_line(given), kept)));
            let but_for_names = |report: &Report| report.saved.clone().map(|saved| Saved { skipped_names: vec![], ..saved });
            prop_assert_eq!(but_for_names(&message.report), but_for_names(&report));
            let told = message.report.not_saved.clone();
            prop_assert_eq!(told.as_ref().map(|told| told.failure), report.not_saved.map(|not| not.failure));
            prop_assert!(told.is_none_or(|told| begins_with(&one_line(&not_saved), &told.detail)));
            prop_assert!(readable(&message.stdout_tail) && readable(&message.stderr_tail));
            let got = message.report.record.clone().unwrap();
            prop_assert!(got.detail.len() <= DETAIL_MAX_BYTES);
            prop_assert!(begins_with(&one_line(&detail), &got.detail));
            let (stdout, stderr) = (message.stdout_tail.as_bytes(), message.stderr_tail.as_bytes());
            let again = Message::encode_with_inputs(&message.report, &message.input_digests, stdout, stderr);
            prop_assert_eq!(Message::decode(&again).unwrap(), message);
        }

        #[test]
        fn a_message_cut_anywhere_after_its_first_line_keeps_what_is_left(
            stdout in "\\PC{0,80}", stderr in "\\PC{0,80}", inputs in 0usize..5, cut in 0usize..2000,
        ) {
            let text =
                Message::encode_with_inputs(&report("why"), &digests(inputs), stdout.as_bytes(), stderr.as_bytes());
            let line = text.find('\n').unwrap();
            let cut = text.floor_char_boundary(cut);
            match Message::decode(text.split_at(cut).0) {
                None => prop_assert!(cut < line),
                Some(message) => {
                    prop_assert!(cut >= line);
                    let whole = (cut.saturating_sub(line + 1) / 80).min(inputs);
                    prop_assert!(message.input_digests.len() >= whole, "{cut}: {message:?}");
                    prop_assert_eq!(&message.input_digests, &digests(message.input_digests.len()));
                    prop_assert!(stdout.starts_with(&message.stdout_tail));
                    prop_assert!(stderr.starts_with(&message.stderr_tail));
                    prop_assert_eq!(message.report.record.unwrap().detail, "why");
                }
            }
        }

        #[test]
        fn any_text_can_be_decoded_or_refused(text in "\\PC{0,200}") {
            let _ = Message::decode(&text);
        }
    }

    /// With all that is said beside them as long as it can be.
    #[test]
    fn the_digests_of_all_inputs_that_a_run_can_have_fit() {
        let every = |step: usize, many: usize| (0..many).map(|n| (n * step, digest(n))).collect::<BTreeMap<_, _>>();
        let long = "\"why\" ".repeat(100);
        let mut report = with_saving(report(&long), true, &long);
        report.record.as_mut().unwrap().gpus = Some(facts(64));
        for digests in [every(1, 32), every(2, 32), every(1, 64), (20..64).step_by(3).map(|n| (n, digest(n))).collect()]
        {
            let text = Message::encode_with_inputs(&report, &digests, &[b'o'; 5000], &[b'e'; 5000]);
            assert!(text.len() <= MESSAGE_MAX_BYTES && text.find('\n').unwrap() < FIRST_LINE_MAX_BYTES);
            let message = Message::decode(&text).unwrap();
            assert_eq!(message.input_digests, digests);
            assert!(message.stdout_tail.len() >= 200 && message.stderr_tail.len() >= 200, "{text}");
        }
    }

    fn but_for(bytes: usize, text: &str) -> &str {
        text.split_at(text.len() - bytes).0
    }

    #[test]
    fn digests_of_earlier_versions_and_half_lines_are_read() {
        let two: BTreeMap<usize, String> = [(0, digest(1)), (7, digest(2))].into();
        let json = serde_json::to_string(&two).unwrap();
        let line = inputs_line(&two);
        for (line, want) in [
            (&*json, two.clone()),
            (but_for(1, &json), two.clone()),
            (but_for(9, &json), [(0, digest(1))].into()),
            (&*line, two.clone()),
            (but_for(2, &line), [(0, digest(1))].into()),
            (line.split_at(44).0, BTreeMap::new()),
            ("", BTreeMap::new()),
            ("x y;z", BTreeMap::new()),
            (";;7;7 ", BTreeMap::new()),
        ] {
            assert_eq!(digests_in(line), want, "{line}");
        }
    }

    #[test]
    fn a_long_tail_takes_what_the_other_leaves() {
        let long = vec![b'x'; 10_000];
        let message = Message::decode(&Message::encode(&Report::default(), &long, b"short")).unwrap();
        assert_eq!(message.stderr_tail, "short");
        assert!(message.stdout_tail.len() > 4000);
        let message = Message::decode(&Message::encode(&Report::default(), b"short", &long)).unwrap();
        assert_eq!(message.stdout_tail, "short");
        assert!(message.stderr_tail.len() > 4000);
        let message = Message::decode(&Message::encode(&Report::default(), &long, &long)).unwrap();
        assert!(message.stdout_tail.len().abs_diff(message.stderr_tail.len()) <= 1);
    }

    #[test]
    fn tails_are_text() {
        let message =
            Message::decode(&Message::encode(&Report::default(), b"a\x1b[1m\x00\xff\tb\r\nc", b"1%\r2%")).unwrap();
        assert_eq!(message.stdout_tail, "a\u{fffd}[1m\u{fffd}\u{fffd}\tb\nc");
        assert_eq!(message.stderr_tail, "1%\n2%");
    }

    #[test]
    fn a_cut_character_leaves_no_trace() {
        let long = "ä".repeat(5000);
        let message = Message::decode(&Message::encode(&Report::default(), long.as_bytes(), &[])).unwrap();
        assert!(message.stdout_tail.chars().all(|c| c == 'ä'));
        let message = Message::decode(&Message::encode(&Report::default(), &long.as_bytes()[1..], &[])).unwrap();
        assert!(message.stdout_tail.chars().all(|c| c == 'ä'));
    }

    #[test]
    fn a_record_of_a_newer_runner_is_read() {
        let line = r#"{"record":{"exitCode":0,"finishedAtMs":1,"usage":{"gpuMs":3},"new":1},"files":2,"more":[]}"#;
        let message = Message::decode(line).unwrap();
        assert_eq!(message.report.record.unwrap().exit_code, Some(0));
        assert_eq!(message.report.files, 2);
    }
}
