use super::*;
use crate::bundle::Limits;
use crate::helper::markers;
use sha2::Digest as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request: the first byte that was asked for, and on what condition.
type Asked = (Option<usize>, Option<String>);

#[derive(Default)]
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    /// So many bytes go out before the connection is closed, or stays open and silent.
    cut: Option<usize>,
    hangs: bool,
    /// The end of the connection is the end of the body.
    without_length: bool,
}

struct Web {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Web {
    /// `answer` gets how many requests there were before, and the request.
    fn start(answer: impl Fn(usize, &Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Asked>>>::default());
        let log = asked.clone();
        thread::spawn(move || {
            let mut kept = vec![];
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let request = read(&connection);
                let before = log.lock().unwrap().len();
                let answer = answer(before, &request);
                log.lock().unwrap().push(request);
                let length = format!("Content-Length: {}\r\n", answer.body.len());
                let length = if answer.without_length { "" } else { &length };
                let head = format!("HTTP/1.1 {}\r\n{}{length}Connection: close\r\n\r\n", answer.status, answer.headers);
                connection.write_all(head.as_bytes()).unwrap();
                // A client that has seen enough is no error of ours.
                let _ = connection.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())]);
                if answer.hangs {
                    kept.push(connection);
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn ranges(&self) -> Vec<Option<usize>> {
        self.asked().into_iter().map(|(start, _)| start).collect()
    }
}

fn read(connection: &TcpStream) -> Asked {
    let lines = BufReader::new(connection).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let headers: Vec<String> = lines.collect();
    let header = |name: &str| {
        let mut values = headers.iter().filter_map(|line| line.split_once(": "));
        values.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let start = header("range").map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    (start, header("if-range"))
}

const TAG: &str = "ETag: \"one\"\r\n";

fn all(content: &[u8], headers: &str) -> Answer {
    Answer { status: "200 OK", headers: headers.to_owned(), body: content.to_owned(), ..Answer::default() }
}

/// The rest of `content`, as a server of ranges gives it.
fn rest(content: &[u8], start: usize, headers: &str) -> Answer {
    let headers = format!("Content-Range: bytes {start}-{}/{}\r\n{headers}", content.len() - 1, content.len());
    Answer { status: "206 Partial Content", headers, body: content[start..].to_owned(), ..Answer::default() }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|byte| u8::try_from(byte % 251).unwrap()).collect()
}

struct Place {
    dir: tempfile::TempDir,
    budget: Budget,
    progress: Progress,
}

impl Place {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        Self { dir, budget: Limits { entries: 1, bytes: 4 << 20 }.into(), progress: Progress::default() }
    }

    async fn download(&self, web: &Web, want: &[u8]) -> Result<(), Failure> {
        let (href, hash) = (format!("http://{}/file", web.address), sha2::Sha256::digest(want));
        let sha256 = Digest::new(hash.into()).hex();
        let place = self.dir.path().join("file");
        let mark = PartialMark { bin: self.dir.path().to_owned(), name: "partial".to_owned() };
        let wanted = Wanted { href: &href, sha256: &sha256, place: &place, mark };
        let tells = Tells { trouble: &|_| {}, comes: &|| {} };
        download(&client(None).unwrap(), &wanted, &self.budget, &self.progress, tells).await
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("file")).unwrap()
    }

    fn has_spent(&self, bytes: usize) -> bool {
        let left = (4 << 20) - bytes as u64;
        self.budget.has_room(left) && !self.budget.has_room(left + 1)
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut_off() {
    const DATE: &str = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let want = content(3_500_000);
    for (headers, condition) in [(TAG, "\"one\""), (DATE, "Thu, 01 Jan 2026 00:00:00 GMT")] {
        let served = want.clone();
        let web = Web::start(move |_, (start, _)| {
            let answer = start.map_or_else(|| all(&served, headers), |start| rest(&served, start, headers));
            Answer { cut: Some(answer.body.len().min(1_000_000)), ..answer }
        });
        let place = Place::new();
        place.download(&web, &want).await.unwrap();
        assert!(place.content() == want && place.has_spent(want.len()));
        let bytes = 3_500_000;
        let (done, total) = (&place.progress.done_bytes, &place.progress.total_bytes);
        assert_eq!((done.load(Ordering::Relaxed), total.load(Ordering::Relaxed)), (bytes, bytes));
        // All that had come was kept, and it was told of which version the rest has to be.
        let asked = web.asked();
        assert_eq!(asked[0], (None, None));
        let rest = [1_000_000, 2_000_000, 3_000_000].map(|start| (Some(start), Some(condition.to_owned())));
        assert_eq!(asked[1..], rest);
        assert!(!markers::is_marked(place.dir.path(), "partial"));
    }
}

/// Each is cut off in its first answer.
#[tokio::test]
async fn what_does_not_fit_together_begins_anew() {
    let (old, new) = (content(30_000), content(40_000).split_off(1));
    let half = Some(20_000);
    let first = |headers: &str| Answer { cut: half, ..all(&old, headers) };
    let cases = vec![
        ("another version, all of it", vec![first(TAG), all(&new, "ETag: \"two\"\r\n")], vec![None, half]),
        (
            "a part of another version",
            vec![first(TAG), rest(&new, 20_000, "ETag: \"two\"\r\n"), all(&new, "")],
            vec![None, half, None],
        ),
        ("a part of another length", vec![first(TAG), rest(&new, 20_000, TAG), all(&new, "")], vec![None, half, None]),
        ("another part", vec![first(TAG), rest(&old, 10_000, TAG), all(&new, "")], vec![None, half, None]),
        (
            "no such part",
            vec![first(TAG), Answer { status: "416 Range Not Satisfiable", ..Answer::default() }, all(&new, "")],
            vec![None, half, None],
        ),
        (
            "parts of which none fits, again",
            vec![first(TAG), rest(&old, 1, TAG), Answer { cut: half, ..all(&new, TAG) }, all(&new, TAG)],
            vec![None, half, None, None],
        ),
        ("no version", vec![first(""), all(&new, "")], vec![None, None]),
        ("a weak tag", vec![first("ETag: W/\"one\"\r\n"), all(&new, "")], vec![None, None]),
        ("no ranges", vec![first(&format!("{TAG}Accept-Ranges: none\r\n")), all(&new, "")], vec![None, None]),
        // The checksum of all finds what the server did not know.
        (
            "a part of another file that the server takes for the same",
            vec![first(TAG), rest(&new[..30_000], 20_000, TAG), all(&new, TAG)],
            vec![None, half, None],
        ),
        (
            "an end that may be none",
            vec![Answer { cut: half, without_length: true, ..all(&new, "") }, all(&new, "")],
            vec![None, None],
        ),
    ];
    for (name, answers, ranges) in cases {
        let answers = Mutex::new(answers.into_iter());
        let web = Web::start(move |_, _| answers.lock().unwrap().next().unwrap());
        let place = Place::new();
        place.download(&web, &new).await.unwrap();
        assert!(place.content() == new && place.has_spent(new.len()), "{name}");
        assert_eq!(web.ranges(), ranges, "{name}");
    }
}

#[tokio::test]
async fn a_wrong_checksum_is_believed_of_one_piece_or_the_second_time() {
    let served = content(30_000);
    for (cut, ranges) in [(None, vec![None]), (Some(20_000), vec![None, Some(20_000), None, Some(20_000)])] {
        let served = served.clone();
        let web = Web::start(move |_, (start, _)| match start {
            Some(start) => rest(&served, *start, TAG),
            None => Answer { cut, ..all(&served, TAG) },
        });
        let place = Place::new();
        let failure = place.download(&web, b"another").await.unwrap_err();
        assert!(matches!(&failure, Failure::Permanent(Cause::InputInvalid, why) if why.contains("its sha256 is ")));
        assert_eq!(web.ranges(), ranges);
        assert!(place.has_spent(0) && !markers::is_marked(place.dir.path(), "partial"));
    }
}

#[tokio::test]
async fn another_process_goes_on_and_finds_out_what_the_disk_has_lost() {
    let want = content(300_000);
    for is_damaged in [false, true] {
        let served = want.clone();
        let web = Web::start(move |before, (start, _)| match start {
            Some(start) => rest(&served, *start, TAG),
            None if before > 0 => all(&served, TAG),
            None => Answer { cut: Some(200_000), hangs: true, ..all(&served, TAG) },
        });
        let place = Place::new();
        let path = place.dir.path().join("file");
        tokio::select! {
            ended = place.download(&web, &want) => panic!("{ended:?}"),
            () = async {
                while fs::metadata(&path).unwrap().len() < 200_000 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            } => {}
        }
        assert!(place.has_spent(0));
        if is_damaged {
            // Its length reached the disk, and its content did not, when the node lost its power.
            fs::write(&path, vec![0; 200_000]).unwrap();
        }
        place.download(&web, &want).await.unwrap();
        assert!(place.content() == want && place.has_spent(want.len()));
        let anew = if is_damaged { &[None][..] } else { &[] };
        assert_eq!(web.ranges(), [&[None, Some(200_000)], anew].concat());
    }
}

#[tokio::test]
async fn what_is_all_there_is_not_asked_for_again() {
    let want = content(1000);
    let web = Web::start(|_, _| panic!("asked"));
    let place = Place::new();
    fs::write(place.dir.path().join("file"), &want).unwrap();
    let version = Version { validator: "\"one\"".to_owned(), length: Some(1000) };
    markers::mark_json(place.dir.path(), "partial", &version).unwrap();
    place.download(&web, &want).await.unwrap();
    assert!(web.ranges().is_empty() && place.has_spent(1000));
}

#[tokio::test]
async fn an_error_has_no_address_in_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for href in ["ftp://user:pass@example.com/a?X-Signature=pass", "http://user:pass@127.0.0.1:1/a?X-Signature=pass"] {
        let error = client(None).unwrap().get(href).send().await.unwrap_err();
        assert!(format!("{error:?}").contains("pass"), "{error:?}");
        let failure = transfer(error);
        assert!(!format!("{failure:?} {}", failure.error).contains("pass"), "{failure:?}");
    }
}

#[test]
fn what_may_be_secret_in_an_address_is_not_shown() {
    let url = Url::parse("https://user:pass@example.com:8443/a/b?X-Signature=secret#f").unwrap();
    assert_eq!(shown(&url), "https://example.com:8443/a/b");
}
