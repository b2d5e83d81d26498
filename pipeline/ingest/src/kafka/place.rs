//! Partitions that come and go, and where reading them begins: what the log says, if the broker still has it.

use std::sync::Arc;
use std::time::Duration;

use ameles_store::Snapshot;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::control::{Work, backoff};
use super::lane::{Lane, LaneId, Stopped, app_id};
use super::reader::{ASK_WAIT, Client, End, Reader};
use super::reset::topic_app;

/// Attempts to read the log before partitions are taken up without it, paused.
const SNAPSHOT_ATTEMPTS: u32 = 3;
/// How often a position that the broker does not seem to have is asked for again, and after how long: a leader that
/// has just begun may not know its partition's end yet.
const FAULT_ATTEMPTS: u32 = 4;
const FAULT_WAIT: Duration = Duration::from_millis(700);

/// A list for librdkafka; a lane without an offset is named alone, `Some(None)` is the beginning.
pub(super) fn list<'a>(lanes: impl Iterator<Item = (&'a LaneId, Option<i64>)>) -> Result<TopicPartitionList, KafkaError> {
    let mut all = TopicPartitionList::new();
    for (lane, offset) in lanes {
        match offset {
            Some(offset) => all.add_partition_offset(&lane.topic, lane.partition, Offset::Offset(offset))?,
            None => drop(all.add_partition(&lane.topic, lane.partition)),
        }
    }
    Ok(all)
}

/// Where each lane is read from.
fn starts<'a>(lanes: impl Iterator<Item = &'a Lane>) -> Result<TopicPartitionList, KafkaError> {
    let mut all = TopicPartitionList::new();
    for lane in lanes {
        let offset = lane.offset().map_or(Offset::Beginning, Offset::Offset);
        all.add_partition_offset(&lane.id.topic, lane.id.partition, offset)?;
    }
    Ok(all)
}

impl Reader {
    /// Partitions are ours from here on.
    pub(super) fn assign(&mut self, consumer: &Client, partitions: &TopicPartitionList) -> Result<(), End> {
        self.status.rebalanced();
        let first = self.lanes.len();
        for partition in partitions.elements() {
            let (topic, number) = (partition.topic(), partition.partition());
            if !self.lanes.iter().any(|lane| lane.id.partition == number && *lane.id.topic == *topic) {
                let lane = LaneId {
                    topic: topic.into(),
                    partition: number,
                    app: app_id(&self.cluster, topic, number),
                    source: self.source(topic),
                    number: self.lanes_made,
                };
                self.lanes_made += 1;
                self.lanes.push(Lane::new(lane));
            }
        }
        tracing::info!("kafka: {} partitions assigned, {} in all", self.lanes.len() - first, self.lanes.len());
        let snapshot = self.snapshot(SNAPSHOT_ATTEMPTS);
        if let Some(snapshot) = &snapshot {
            self.lanes[first..].iter_mut().for_each(|lane| lane.place(snapshot));
        }
        consumer.incremental_assign(&starts(self.lanes[first..].iter())?)?;
        match snapshot {
            Some(_) => {
                self.verify(consumer, first)?;
                self.tell_gained(first);
                if self.is_paused() {
                    self.pause(consumer)?; // the new ones too
                }
                Ok(())
            }
            // The log cannot be read: nothing is, until it can.
            None => self.void_later(consumer, Duration::from_secs(1)),
        }
    }

    /// Partitions are another's from here on: what is in flight is committed first.
    pub(super) fn revoke(&mut self, consumer: &Client, partitions: &TopicPartitionList) -> Result<(), End> {
        self.status.rebalanced();
        let lost = consumer.assignment_lost();
        let void = lost || !self.flush();
        let revoked = partitions.elements();
        let is_revoked = |lane: &Lane| revoked.iter().any(|of| of.partition() == lane.id.partition && *of.topic() == *lane.id.topic);
        let (gone, kept): (Vec<Lane>, Vec<Lane>) = self.lanes.drain(..).partition(is_revoked);
        self.lanes = kept;
        let gone: Vec<Arc<LaneId>> = gone.into_iter().map(|lane| lane.id).collect();
        gone.iter().for_each(|lane| self.status.gone(lane));
        tracing::info!("kafka: {} partitions {}, {} left", gone.len(), if lost { "lost" } else { "given up" }, self.lanes.len());
        if void {
            // What is in flight of them may be another's to commit already; what is in flight of the others goes with it.
            self.void_later(consumer, Duration::ZERO)?;
            self.send(Work::Anew);
        }
        self.send(Work::Gone(gone));
        Ok(consumer.incremental_unassign(partitions)?)
    }

    /// Reads the log and puts every lane where it says; false when it cannot be read.
    pub(super) fn place_all(&mut self, consumer: &Client) -> Result<bool, End> {
        let Some(snapshot) = self.snapshot(1) else { return Ok(false) };
        self.lanes.iter_mut().for_each(|lane| lane.place(&snapshot));
        if !self.lanes.is_empty() {
            let sought = consumer.seek_partitions(starts(self.lanes.iter())?, ASK_WAIT)?;
            for partition in sought.elements() {
                partition.error()?;
            }
        }
        self.send(Work::Anew);
        self.verify(consumer, 0)?;
        self.tell_gained(0);
        Ok(true)
    }

    /// The tables as they stand now.
    fn snapshot(&self, attempts: u32) -> Option<Arc<Snapshot>> {
        for attempt in 0..attempts {
            match self.handle.block_on(self.env.warehouse.snapshot()) {
                Ok(snapshot) => return Some(snapshot),
                Err(error) => {
                    let problem = format!("the warehouse cannot be read: {error}");
                    if self.status.worth_telling(&problem) {
                        tracing::error!("kafka: {problem}; nothing is lost, trying on");
                    }
                    self.status.failed(false, problem);
                }
            }
            if attempt + 1 < attempts {
                self.sleep(backoff(attempt, Duration::from_millis(200), Duration::from_secs(2)));
            }
        }
        None
    }

    /// Compares positions with what the broker has, from the `first` lane on.
    fn verify(&mut self, consumer: &Client, first: usize) -> Result<(), End> {
        for at in first..self.lanes.len() {
            let lane = &self.lanes[at];
            if lane.stopped.is_some() {
                continue;
            }
            let (id, found) = (Arc::clone(&lane.id), lane.found);
            let made_anew = self.topic_made_anew(&id)?;
            let ends = if made_anew { None } else { self.ends_without_fault(consumer, at) };
            let stopped = match ends {
                Some((low, high)) => self.lanes[at].fault(low, high),
                None => made_anew.then(|| Stopped::Recreated { position: self.lanes[at].offset().unwrap_or(0) }),
            };
            let end = ends.map(|(_, high)| high);
            self.status.placed(&id, found.filter(|found| *found >= 0), end, stopped);
            match stopped {
                Some(why) => self.stop_lane(consumer, at, why)?,
                None => self.lanes[at].checked = true,
            }
            if ends.is_none() && !made_anew {
                // The broker does not answer: it is asked again later, and not once for each partition.
                self.lanes[at].checked = false;
                self.lanes[at + 1..].iter().for_each(|lane| {
                    self.status.placed(&lane.id, lane.found.filter(|found| *found >= 0), None, lane.stopped);
                });
                break;
            }
        }
        Ok(())
    }

    /// The partition's first and next offset; a fault is looked at again before it is believed.
    fn ends_without_fault(&self, consumer: &Client, at: usize) -> Option<(i64, i64)> {
        let lane = &self.lanes[at];
        let mut ends = None;
        for attempt in 0..FAULT_ATTEMPTS {
            ends = consumer.fetch_watermarks(&lane.id.topic, lane.id.partition, ASK_WAIT).ok();
            match ends {
                Some((low, high)) if lane.fault(low, high).is_some() && attempt + 1 < FAULT_ATTEMPTS => self.sleep(FAULT_WAIT),
                _ => break,
            }
        }
        ends
    }

    /// Tells the assembler of the lanes from the `first` on, and whether there is something to read in them: such a
    /// one holds the watermark back until it has been read.
    fn tell_gained(&mut self, first: usize) {
        let status = self.status.get();
        let is_behind = |lane: &Lane| {
            let known = status.partitions.iter().find(|of| of.partition == lane.id.partition && *of.topic == *lane.id.topic);
            lane.stopped.is_none() && known.and_then(|of| of.end).is_none_or(|end| lane.offset().unwrap_or(0) < end)
        };
        let gained = self.lanes[first..].iter().map(|lane| (Arc::clone(&lane.id), is_behind(lane))).collect();
        self.send(Work::Gained(gained));
    }

    /// Looks at the positions of partitions from which nothing came, or of all after an error.
    pub(super) fn check(&mut self, consumer: &Client, all: bool) -> Result<(), End> {
        if self.again_at.is_some() {
            return Ok(());
        }
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            let moved = lane.checked_at != lane.position;
            if lane.stopped.is_some() || (moved && lane.checked && !all) {
                self.lanes[at].checked_at = self.lanes[at].position;
                continue;
            }
            let Some((low, high)) = self.ends_without_fault(consumer, at) else { break };
            self.status.ends(vec![(self.lanes[at].id.topic.to_string(), self.lanes[at].id.partition, high)]);
            if let Some(why) = self.lanes[at].fault(low, high) {
                self.stop_lane(consumer, at, why)?;
            }
            let lane = &mut self.lanes[at];
            (lane.checked, lane.checked_at) = (true, lane.position);
        }
        Ok(())
    }

    /// A stopped partition goes on once its position has been set back.
    pub(super) fn look_for_resets(&mut self, consumer: &Client) -> Result<(), End> {
        if self.again_at.is_some() || self.lanes.iter().all(|lane| lane.stopped.is_none()) {
            return Ok(());
        }
        let Some(snapshot) = self.snapshot(1) else { return Ok(()) };
        let is_reset = |lane: &Lane| lane.stopped.is_some() && snapshot.txn(ameles_schemas::Table::Events, &lane.id.app) != lane.found;
        if self.lanes.iter().any(is_reset) {
            // What is in flight of the others is committed first, so that it need not be read again.
            self.flush();
            self.void_later(consumer, Duration::ZERO)?;
        }
        Ok(())
    }

    /// The broker has told a topic's id, before the first message of it: another one than the log knows means another
    /// topic of the same name.
    pub(super) fn topic_id(&mut self, consumer: &Client, topic: &str, id: i64) -> Result<(), End> {
        if self.topic_ids.insert(topic.to_owned(), id) == Some(id) {
            return Ok(());
        }
        for at in 0..self.lanes.len() {
            let lane = Arc::clone(&self.lanes[at].id);
            if *lane.topic == *topic && self.lanes[at].stopped.is_none() && self.topic_made_anew(&lane)? {
                self.send_open(at); // what was read so far is the old one's
                let position = self.lanes[at].offset().unwrap_or(0);
                self.stop_lane(consumer, at, Stopped::Recreated { position })?;
            }
        }
        Ok(())
    }

    /// Whether the log knows the topic under another id. Where it knows none, this one is noted.
    fn topic_made_anew(&self, lane: &LaneId) -> Result<bool, End> {
        let Some(id) = self.topic_ids.get(&*lane.topic).copied() else { return Ok(false) };
        let app = topic_app(&self.cluster, &lane.topic);
        match self.handle.block_on(self.env.warehouse.position_or_set(&app, id)) {
            Ok(noted) => Ok(noted != id),
            Err(error) => Err(End::Failed(format!("the warehouse cannot be written: {error}"))),
        }
    }

    /// What quarantine calls a topic: the alias or a keyed hash, never its name.
    fn source(&self, topic: &str) -> Arc<str> {
        let hash = hex::encode(self.env.source_hasher.bytes16(format!("kafka:{}:{topic}", self.cluster).as_bytes()));
        match &self.options.alias {
            Some(alias) if self.options.topics.len() == 1 => alias.as_str().into(),
            Some(alias) => format!("{alias}-{}", &hash[..8]).into(),
            None => format!("kafka-{hash}").into(),
        }
    }
}
