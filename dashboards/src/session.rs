//! Sessions of the dashboard: a random id in a cookie, the rest in memory, bounded and expiring.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ameles_core::{Random, RandomUnavailable, Timestamp};
use ring::digest;

/// The cookie's name.
pub(crate) const COOKIE: &str = "ameles_session";

struct Entry<P> {
    principal: P,
    expires: Timestamp,
}

/// Open sessions. Keyed by a hash of the id, so that looking one up takes no time that tells anything.
pub(crate) struct Sessions<P> {
    open: Mutex<HashMap<[u8; 32], Entry<P>>>,
    most: usize,
    lifetime_s: i64,
}

impl<P: Clone> Sessions<P> {
    pub(crate) fn new(most: usize, lifetime_s: i64) -> Self {
        Self { open: Mutex::new(HashMap::new()), most: most.max(1), lifetime_s }
    }

    /// Opens a session and returns its id. When all places are taken the one that ends first gives way.
    pub(crate) fn open(&self, principal: P, now: Timestamp, random: &dyn Random) -> Result<String, RandomUnavailable> {
        let mut id = [0_u8; 32];
        random.fill(&mut id)?;
        let id = hex::encode(id);
        let mut open = self.lock();
        open.retain(|_, entry| entry.expires > now);
        while open.len() >= self.most {
            let Some(first) = open.iter().min_by_key(|(_, entry)| entry.expires).map(|(key, _)| *key) else { break };
            open.remove(&first);
        }
        open.insert(fingerprint(&id), Entry { principal, expires: now.plus_secs(self.lifetime_s) });
        Ok(id)
    }

    /// Who the session belongs to, while it lasts.
    pub(crate) fn find(&self, id: &str, now: Timestamp) -> Option<P> {
        self.lock().get(&fingerprint(id)).filter(|entry| entry.expires > now).map(|entry| entry.principal.clone())
    }

    /// Ends a session.
    pub(crate) fn close(&self, id: &str) {
        self.lock().remove(&fingerprint(id));
    }

    /// The cookie that carries an id to the browser and back.
    pub(crate) fn cookie(&self, id: &str, secure: bool) -> String {
        let secure = if secure { "; Secure" } else { "" };
        format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", self.lifetime_s)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Entry<P>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cookie that takes the session's away.
pub(crate) fn expired_cookie() -> String {
    format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// The session id among a request's cookies.
pub(crate) fn id_in(cookies: &str) -> Option<&str> {
    cookies.split(';').filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn fingerprint(id: &str) -> [u8; 32] {
    let mut bytes = [0_u8; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, id.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use ameles_core::SeededRandom;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_session_ends_by_time_by_logout_and_by_crowding() {
        let random = SeededRandom::new(1);
        let sessions = Sessions::new(2, 100);
        let first = sessions.open("a", at(0), &random).unwrap();
        assert_eq!(sessions.find(&first, at(99)), Some("a"));
        assert_eq!(sessions.find(&first, at(100)), None);
        let second = sessions.open("b", at(10), &random).unwrap();
        let third = sessions.open("c", at(20), &random).unwrap();
        assert_eq!(sessions.find(&first, at(21)), None, "the oldest gave way");
        sessions.close(&second);
        assert_eq!(sessions.find(&second, at(21)), None);
        assert_eq!(sessions.find(&third, at(21)), Some("c"));
        assert_ne!(second, third);
    }

    #[test]
    fn cookies_are_kept_from_scripts_and_other_sites() {
        let sessions = Sessions::<&str>::new(1, 60);
        let cookie = sessions.cookie("abc", true);
        for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
            assert!(cookie.contains(part), "{part}");
        }
        assert_eq!(id_in("theme=dark; ameles_session=abc"), Some("abc"));
        assert_eq!(id_in("xameles_session=abc"), None);
    }
}
