//! The pool: how many agent processes there may be at once, and who gives one up when all places are taken.
//!
//! A session holds a [`Lease`] while it has an agent process. When no place is free, the process that has been
//! idle for longest is asked to go; one that works or waits for an answer never is. Those that wait for a place
//! get it in the order in which they came.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix::{Message, Recipient};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::process::memory;

/// How often the memory of all agents is looked at.
const MEMORY_CHECK: Duration = Duration::from_secs(5);

/// To the holder of a place: let the agent process go if nothing runs on it, others wait for its place.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ReleaseAgent;

/// Places for agent processes; cheap to clone.
#[derive(Clone)]
pub struct Pool {
    places: Arc<Semaphore>,
    seats: Arc<Mutex<Seats>>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    waiting: usize,
    taken: HashMap<u64, Seat>,
}

struct Seat {
    /// Who is asked to let go; none for one that is never idle.
    owner: Option<Recipient<ReleaseAgent>>,
    /// Since when nothing runs on it; none while something does.
    idle_since: Option<Instant>,
    asked: bool,
}

/// A place in the pool; given back when dropped.
pub struct Lease {
    pool: Pool,
    seat: u64,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool with so many places.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), seats: Arc::default() }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. `owner` is asked to let go when others wait and its agent is idle; one that lets go as soon as
    /// nothing runs needs none.
    ///
    /// # Errors
    /// Only when the pool is closed, which it never is while the server runs.
    pub async fn acquire(&self, owner: Option<Recipient<ReleaseAgent>>) -> Result<Lease, tokio::sync::AcquireError> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_full) => {
                let _waiting = Waiting::new(self);
                self.ask_longest_idle();
                Arc::clone(&self.places).acquire_owned().await?
            }
        };
        Ok(self.seat(place, owner))
    }

    /// A place, if one is free and nobody waits for it. Nobody is asked to let go for it.
    #[must_use]
    pub fn take(&self, owner: Option<Recipient<ReleaseAgent>>) -> Option<Lease> {
        Some(self.seat(Arc::clone(&self.places).try_acquire_owned().ok()?, owner))
    }

    fn seat(&self, place: OwnedSemaphorePermit, owner: Option<Recipient<ReleaseAgent>>) -> Lease {
        let mut seats = self.seats();
        let seat = seats.next;
        seats.next += 1;
        seats.taken.insert(seat, Seat { owner, idle_since: None, asked: false });
        Lease { pool: self.clone(), seat, _place: place }
    }

    /// Agent processes that have a place now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.seats().taken.len()
    }

    /// True when more wait for a place than are on their way out for them.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        let seats = self.seats();
        seats.waiting > seats.taken.values().filter(|seat| seat.asked).count()
    }

    /// Those that wait for a place now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.seats().waiting
    }

    /// Lets the process go that has been idle for longest, while all of them together take more than `limit` bytes.
    /// One at a time: it takes a while to end, and the next look shows what that has given. Never ends.
    pub async fn keep_below(&self, limit: u64) {
        let mut ticks = tokio::time::interval(MEMORY_CHECK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.in_use() == 0 {
                continue;
            }
            let taken = tokio::task::spawn_blocking(memory::descendants).await.unwrap_or(0);
            if taken > limit && self.ask_longest_idle() {
                log::info!(taken, limit; "agents take too much memory: the one that was idle for longest is let go");
            }
        }
    }

    /// False when nobody is idle.
    fn ask_longest_idle(&self) -> bool {
        let mut seats = self.seats();
        let idle = seats.taken.values_mut().filter(|seat| !seat.asked);
        let longest =
            idle.filter_map(|seat| seat.idle_since.map(|since| (since, seat))).min_by_key(|(since, _)| *since);
        if let Some((_, seat)) = longest {
            seat.asked = true;
            // A notice about lifecycle: it must not be lost to a full mailbox.
            if let Some(owner) = &seat.owner {
                owner.do_send(ReleaseAgent);
            }
            return true;
        }
        false
    }
}

/// Counts those that wait, also when the one that waits is dropped.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.seats().waiting += 1;
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut seats = self.0.seats();
        seats.waiting = seats.waiting.saturating_sub(1);
    }
}

impl Lease {
    /// Something runs on it: it is not asked to go.
    pub fn busy(&self) {
        if let Some(seat) = self.pool.seats().taken.get_mut(&self.seat) {
            seat.idle_since = None;
            seat.asked = false;
        }
    }

    /// Nothing runs on it from now on.
    pub fn idle(&self) {
        let mut seats = self.pool.seats();
        let wanted = seats.waiting > 0;
        if let Some(seat) = seats.taken.get_mut(&self.seat) {
            seat.idle_since = Some(Instant::now());
        }
        drop(seats);
        if wanted {
            self.pool.ask_longest_idle();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.seats().taken.remove(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};
    use tokio::sync::mpsc;

    use super::*;

    /// A session that notes when it is asked to let its agent go.
    struct Owner(mpsc::UnboundedSender<&'static str>, &'static str);

    impl Actor for Owner {
        type Context = Context<Self>;
    }

    impl Handler<ReleaseAgent> for Owner {
        type Result = ();

        fn handle(&mut self, _: ReleaseAgent, _: &mut Self::Context) {
            self.0.send(self.1).unwrap();
        }
    }

    #[actix::test]
    async fn the_longest_idle_goes_first_and_one_that_works_never() {
        let (asked, mut heard) = mpsc::unbounded_channel();
        let owner = |name| Owner(asked.clone(), name).start().recipient();
        let pool = Pool::new(3);
        let works = pool.acquire(Some(owner("works"))).await.unwrap();
        let older = pool.acquire(Some(owner("older"))).await.unwrap();
        let newer = pool.acquire(Some(owner("newer"))).await.unwrap();
        older.idle();
        newer.idle();
        assert_eq!(pool.in_use(), 3);
        let waits = actix::spawn({
            let (pool, owner) = (pool.clone(), owner("waits"));
            async move { pool.acquire(Some(owner)).await.unwrap() }
        });
        assert_eq!(heard.recv().await, Some("older"));
        drop(older);
        let got = waits.await.unwrap();
        assert_eq!(pool.in_use(), 3);
        // All places work now but one: who comes next waits until one is idle, and that one is asked at once.
        newer.busy();
        let waits = actix::spawn({
            let (pool, owner) = (pool.clone(), owner("last"));
            async move { pool.acquire(Some(owner)).await.unwrap() }
        });
        tokio::task::yield_now().await;
        works.idle();
        assert_eq!(heard.recv().await, Some("works"));
        drop(works);
        drop((waits.await.unwrap(), got, newer));
        assert_eq!(pool.in_use(), 0);
        assert!(heard.try_recv().is_err(), "somebody else was asked too");
    }

    #[actix::test]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let (asked, _heard) = mpsc::unbounded_channel();
        let owner = || Owner(asked.clone(), "x").start().recipient();
        let pool = Pool::new(1);
        let only = pool.acquire(Some(owner())).await.unwrap();
        let waits = actix::spawn({
            let (pool, owner) = (pool.clone(), owner());
            async move { pool.acquire(Some(owner)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        waits.abort();
        assert!(waits.await.is_err());
        assert_eq!(pool.seats().waiting, 0);
        drop(only);
        assert!(pool.acquire(Some(owner())).await.is_ok());
    }

    #[actix::test]
    async fn too_much_memory_lets_an_idle_one_go_and_never_one_that_works() {
        let (asked, mut heard) = mpsc::unbounded_channel();
        let owner = |name| Owner(asked.clone(), name).start().recipient();
        let pool = Pool::new(2);
        let works = pool.acquire(Some(owner("works"))).await.unwrap();
        let idle = pool.acquire(Some(owner("idle"))).await.unwrap();
        idle.idle();
        // Memory of a process below this one is over no bytes at all.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        tokio::select! {
            () = pool.keep_below(0) => {}
            name = heard.recv() => assert_eq!(name, Some("idle")),
        }
        assert!(!pool.ask_longest_idle(), "one that works was asked, or one twice");
        child.kill().unwrap();
        child.wait().unwrap();
        drop((works, idle));
    }
}
