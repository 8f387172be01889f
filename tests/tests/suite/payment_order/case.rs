//! One way to tell a life.

use proptest::{collection::vec, option::weighted, prelude::*};
use tenantry_domain::Clock as _;

use super::{
    crash::Answer,
    life::{Life, Told},
    outcome::Outcome,
};

/// Longer than a claim keeps others away.
const CLAIM_IS_OVER: i64 = 91_000;
/// As many writes as an event may need.
const WRITES: usize = 9;
/// As many questions as an event may raise.
const QUESTIONS: usize = 8;

/// When one dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The write is not made.
    Before,
    /// The write is made, and nobody knows.
    After,
}

/// A delivery.
#[derive(Debug, Clone)]
pub(super) struct Step {
    event: usize,
    /// When: in this act, by this number within it.
    act: usize,
    turn: u16,
    /// Which write is the worker's last.
    crash: Option<(usize, Moment)>,
    /// After how many questions the vendor goes on to the next act.
    moves_on: Option<usize>,
    /// Whether the next one comes at the same moment.
    together: bool,
    /// Whether it comes again, if need be, in the next act only.
    waits: bool,
}

/// Deliveries, in their order, of a life that ends after so many acts.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) acts: usize,
    steps: Vec<Step>,
}

/// All the ways to tell a life.
pub(super) fn cases(life: &Life) -> impl Strategy<Value = Case> + use<> {
    let whole = life.acts;
    let happened: Vec<usize> = life.told.iter().map(|told| told.act).collect();
    let moment = prop_oneof![Just(Moment::Before), Just(Moment::After)];
    let delay = prop_oneof![3 => Just(0), 2 => 0..whole];
    let crash = weighted(0.2, (1..=WRITES, moment));
    let step = (any::<u16>(), delay, crash, weighted(0.1, 0..=QUESTIONS), weighted(0.2, Just(())), any::<bool>());
    let each = vec(vec(step, 1..=3), happened.len());
    // Where a life stands in the middle has to be the same as well, and is told in half the time.
    let acts = prop_oneof![1 => Just(whole), 4 => 1..=whole];
    // None of it before the end, now and then.
    (acts, weighted(0.3, Just(())), each).prop_map(move |(acts, late, each)| {
        let mut steps = vec![];
        for (event, copies) in each.into_iter().enumerate().filter(|(event, _)| happened[*event] < acts) {
            for (turn, delay, crash, moves_on, together, waits) in copies {
                let act = if late.is_some() { acts - 1 } else { (happened[event] + delay).min(acts - 1) };
                steps.push(Step { event, act, turn, crash, moves_on, together: together.is_some(), waits });
            }
        }
        steps.sort_by_key(|step| (step.act, step.turn));
        Case { acts, steps }
    })
}

impl Case {
    /// For people.
    pub(super) fn shown(&self, life: &Life) -> String {
        let line = |step: &Step| {
            let Step { event, act, crash, moves_on, together, waits, .. } = step;
            let mut line = format!("in act {act}: {}", life.name(*event));
            if let Some((write, moment)) = crash {
                line += &format!(
                    "; dies {moment:?} write {write}{}",
                    if *waits { ", comes again in the next act" } else { "" }
                );
            }
            if let Some(questions) = moves_on {
                line += &format!("; the next act begins after question {questions}");
            }
            line + if *together { "; together with the next" } else { "" }
        };
        let lines = self.steps.iter().map(line).collect::<Vec<_>>().join("\n");
        format!("of {} acts:\n{lines}", self.acts)
    }
}

impl Life {
    async fn deliver(&self, step: &Step, worker: usize) -> Answer {
        self.workers[worker].takes(&self.told[step.event].body, self.clock.now(), step.crash).await
    }

    /// Tells everything as the case says.
    pub(super) async fn tell(&self, Case { acts, steps }: &Case) -> Result<Outcome, String> {
        self.begin(*acts).await;
        let mut again: Vec<Step> = vec![];
        for act in 0..*acts {
            self.world.go_to(act);
            // What waited for this act comes first.
            let mut due = std::mem::take(&mut again);
            due.extend(steps.iter().filter(|step| step.act == act).cloned());
            for round in 0.. {
                let mut failed = vec![];
                let mut rest = due.as_slice();
                while let Some((first, others)) = rest.split_first() {
                    self.world.moves_on(first.moves_on);
                    match others.split_first() {
                        Some((second, others)) if first.together => {
                            let (one, two) = tokio::join!(self.deliver(first, 0), self.deliver(second, 1));
                            failed.extend([(first, one), (second, two)]);
                            rest = others;
                        }
                        _ => {
                            failed.push((first, self.deliver(first, 0).await));
                            rest = others;
                        }
                    }
                }
                failed.retain(|(_, answer)| !answer.is_taken());
                let odd =
                    failed.iter().find(|(_, answer)| !answer.died && ![409, 503].contains(&answer.status.as_u16()));
                if let Some((step, answer)) = odd {
                    return Err(format!("{} was answered {}", self.name(step.event), answer.status));
                }
                let last = act + 1 == *acts;
                let mut now = vec![];
                for (step, _) in failed {
                    let to = if step.waits && !last { &mut again } else { &mut now };
                    to.push(Step { crash: None, moves_on: None, together: false, ..step.clone() });
                }
                if now.is_empty() {
                    break;
                }
                if round > 8 {
                    return Err(format!("{} is never taken", self.name(now[0].event)));
                }
                self.clock.advance(CLAIM_IS_OVER);
                due = now;
            }
        }
        self.world.moves_on(None);
        Ok(Outcome::of(&self.platform, &self.tenant).await)
    }

    /// Tells every event of the first acts once, in the order in which they happened, in the act that `act` makes of theirs.
    async fn told_in_order(&self, acts: usize, act: impl Fn(usize) -> usize) -> Outcome {
        let step = |(event, told): (usize, &Told)| {
            let (turn, crash, moves_on, together, waits) = (0, None, None, false, false);
            Step { event, act: act(told.act), turn, crash, moves_on, together, waits }
        };
        let told = self.told.iter().enumerate().filter(|(_, told)| told.act < acts);
        self.tell(&Case { acts, steps: told.map(step).collect() }).await.unwrap()
    }

    /// As it should be: every event once, in order, when it happens.
    pub(super) async fn told_at_once(&self, acts: usize) -> Outcome {
        self.told_in_order(acts, |act| act).await
    }

    /// Every event once, in order, when all is over.
    pub(super) async fn told_afterwards(&self) -> Outcome {
        self.told_in_order(self.acts, |_| self.acts - 1).await
    }

    /// Tells one event alone, when it happens, to one who dies, and again. `None` when there was no such write to die at.
    pub(super) async fn told_alone(&self, event: usize, crash: Option<(usize, Moment)>) -> Option<Outcome> {
        self.begin(self.acts).await;
        let Told { act, body, .. } = &self.told[event];
        self.world.go_to(*act);
        let first = self.workers[0].takes(body, self.clock.now(), crash).await;
        assert_eq!(first.is_taken(), !first.died, "{}: {first:?}", self.name(event));
        if crash.is_some() != first.died {
            return None;
        }
        if first.died {
            self.clock.advance(CLAIM_IS_OVER);
            let second = self.workers[1].takes(body, self.clock.now(), None).await;
            assert!(second.is_taken(), "{}: {second:?}", self.name(event));
        }
        Some(Outcome::of(&self.platform, &self.tenant).await)
    }

    /// Tells one event, when it happens, and in the middle of the work on it, at an answer of the vendor that is on its way,
    /// another one of the next act, to the end. `None` when there are not so many answers.
    pub(super) async fn overtaken(&self, event: usize, answer: usize, later: usize) -> Option<Outcome> {
        self.begin(self.acts).await;
        let (event, later) = (&self.told[event], &self.told[later]);
        self.world.go_to(event.act);
        let (reached, go) = self.world.holds(answer);
        let first = async {
            let first = self.workers[0].takes(&event.body, self.clock.now(), None).await;
            self.world.holds_none();
            first
        };
        let second = async {
            reached.await.ok()?;
            self.world.go_to(later.act);
            let second = self.workers[1].takes(&later.body, self.clock.now(), None).await;
            go.send(()).unwrap();
            Some(second)
        };
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_taken() && second?.is_taken(), "{first:?}, {second:?}");
        Some(Outcome::of(&self.platform, &self.tenant).await)
    }

    /// Tells both one after the other.
    pub(super) async fn followed(&self, event: usize, later: usize) -> Outcome {
        self.begin(self.acts).await;
        for event in [&self.told[event], &self.told[later]] {
            self.world.go_to(event.act);
            assert!(self.workers[0].takes(&event.body, self.clock.now(), None).await.is_taken());
        }
        Outcome::of(&self.platform, &self.tenant).await
    }
}
