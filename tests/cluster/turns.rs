//! Which tests run side by side. All begin at once and wait here for their turn: first those that share the operator and
//! the node, then those that need a node with little else on it, then those with operators of their own, and last, one
//! after the other, those that stop or change what others use.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit};

use crate::common::{eventually_for, scale_operator};

/// Read by tests that share the node with many others.
static NODE: RwLock<()> = RwLock::const_new(());
/// Read by tests that need the operator as it is installed.
static OPERATOR: RwLock<()> = RwLock::const_new(());
/// Read by tests with operators of their own.
static OWN_OPERATORS: RwLock<()> = RwLock::const_new(());

static SHARED_TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::env::var("TESTS_AT_ONCE").map_or(1, |number| number.parse().unwrap())));
/// Beside those that are busy.
static WAITING_TURNS: Semaphore = Semaphore::const_new(6);
static QUIET_TURNS: Semaphore = Semaphore::const_new(3);
static OWN_TURNS: Semaphore = Semaphore::const_new(6);
/// One at a time changes the node's devices, opens the second node, or needs all GPUs.
static DEVICES: Semaphore = Semaphore::const_new(1);

/// What is held until the operator as it is installed may run again.
type Away = RwLockWriteGuard<'static, ()>;
static AWAY: Mutex<Weak<Away>> = Mutex::const_new(Weak::new());

/// How long a turn lasts: a line of `TEST_TIMES` when it ends, with its seconds, its kind and the test's name.
struct Timed {
    kind: &'static str,
    begun: Instant,
}

impl Timed {
    fn of(kind: &'static str) -> Self {
        Self { kind, begun: Instant::now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let Some(times) = std::env::var_os("TEST_TIMES") else { return };
        let seconds = self.begun.elapsed().as_secs_f64();
        let line = format!("{seconds:.1} {} {}\n", self.kind, std::thread::current().name().unwrap_or("unknown"));
        // One write, so that lines of several tests do not mix.
        let _ =
            File::options().create(true).append(true).open(times).and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// A test's turn, until it is dropped.
pub struct Turn {
    _timed: Timed,
    _read: Vec<RwLockReadGuard<'static, ()>>,
    _written: Vec<RwLockWriteGuard<'static, ()>>,
    _away: Option<Arc<Away>>,
    _permits: Vec<SemaphorePermit<'static>>,
}

impl Turn {
    /// Holds nothing yet.
    fn begun(kind: &'static str) -> Self {
        Self { _timed: Timed::of(kind), _read: Vec::new(), _written: Vec::new(), _away: None, _permits: Vec::new() }
    }

    /// Beside many others.
    pub async fn shared() -> Self {
        Self::beside_many("shared", &SHARED_TURNS).await
    }

    /// The same, of a test that does little but wait.
    pub async fn waiting() -> Self {
        Self::beside_many("waiting", &WAITING_TURNS).await
    }

    async fn beside_many(kind: &'static str, turns: &'static Semaphore) -> Self {
        // Both are held from the start, so that all other turns come later.
        let read = vec![OPERATOR.read().await, NODE.read().await];
        let permits = vec![permit(turns).await];
        Self { _read: read, _permits: permits, ..Self::begun(kind) }
    }

    /// Beside a few others.
    pub async fn quiet() -> Self {
        let read = vec![OPERATOR.read().await];
        drop(free(&NODE).await);
        let permits = vec![permit(&QUIET_TURNS).await];
        Self { _read: read, _permits: permits, ..Self::begun("quiet") }
    }

    /// The same, and nobody else does anything to the node's devices or opens the second node.
    pub async fn with_devices() -> Self {
        let read = vec![OPERATOR.read().await];
        drop(free(&NODE).await);
        // In this order: who waits for the devices takes no turn from others.
        let permits = vec![permit(&DEVICES).await, permit(&QUIET_TURNS).await];
        Self { _read: read, _permits: permits, ..Self::begun("devices") }
    }

    /// With operators of its own, while the installed one is away.
    pub async fn with_own_operators(client: &Client) -> Self {
        let read = vec![OWN_OPERATORS.read().await];
        let permits = vec![permit(&OWN_TURNS).await];
        let mut away = AWAY.lock().await;
        let shared = if let Some(shared) = away.upgrade() {
            shared
        } else {
            let shared = Arc::new(free(&OPERATOR).await);
            scale_operator(client, 0).await;
            *away = Arc::downgrade(&shared);
            shared
        };
        Self { _read: read, _permits: permits, _away: Some(shared), ..Self::begun("operators") }
    }

    /// Nobody else.
    pub async fn alone() -> Self {
        let nobody =
            async || Ok::<_, tokio::sync::TryLockError>(vec![OPERATOR.try_write()?, OWN_OPERATORS.try_write()?]);
        let written = eventually_for(Duration::MAX, "all others to end", nobody).await;
        Self { _written: written, ..Self::begun("alone") }
    }
}

async fn permit(turns: &'static Semaphore) -> SemaphorePermit<'static> {
    turns.acquire().await.unwrap()
}

/// Waits until nobody holds it. Who waits in a lock's queue holds up all that come later.
async fn free(lock: &'static RwLock<()>) -> RwLockWriteGuard<'static, ()> {
    eventually_for(Duration::MAX, "others to end", async || lock.try_write()).await
}
