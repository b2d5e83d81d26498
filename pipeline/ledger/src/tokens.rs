//! Making, verifying and revoking tokens.

use ameles_core::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde_json::json;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use zeroize::Zeroizing;

use crate::act::{Act, Op};
use crate::error::Doing as _;
use crate::write::Write;
use crate::{Ledger, LedgerError, NewToken, Principal, Role, TokenInfo, TokenSecret, validate};

const PREFIX: &str = "ameles_";
/// 32 bytes in base64url without padding.
const SECRET_CHARS: usize = 43;

impl Ledger {
    /// Makes a token and returns its secret, which is kept nowhere and cannot be shown again.
    ///
    /// # Errors
    /// When the name is taken or an argument breaks its rule.
    pub async fn create_token(&self, token: NewToken) -> Result<TokenSecret, LedgerError> {
        validate::token_name(&token.name)?;
        validate::actor(&token.actor)?;
        token.partner.as_deref().map_or(Ok(()), validate::partner)?;
        let mut write = Write::begin(&self.inner).await?;
        validate::that(token.expires > write.now, "the expiry", "later than now")?;
        let taken: Option<i64> = sqlx::query_scalar("SELECT 1 FROM tokens WHERE name = ?")
            .bind(token.name.as_str())
            .fetch_optional(&mut *write.tx)
            .await
            .doing("look for a token")?;
        if taken.is_some() {
            return Err(LedgerError::TokenExists(token.name));
        }
        // 256 random bits: no guess finds them, so that a plain SHA-256 is a sufficient hash.
        let mut bytes = Zeroizing::new([0_u8; 32]);
        self.inner.random.fill(&mut *bytes)?;
        let mut secret = Zeroizing::new(String::with_capacity(PREFIX.len() + SECRET_CHARS));
        secret.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(*bytes, &mut secret);
        let detail = json!({"token": token.name, "role": token.role, "partner": token.partner, "expires": token.expires});
        let op = Op::Token {
            name: token.name,
            role: token.role,
            partner: token.partner,
            expires: token.expires,
            hash: hex::encode(hash_of(&secret)),
        };
        write.perform(vec![Act::new(&token.actor, "token_created", None, &detail, op)]).await?;
        write.commit().await?;
        Ok(TokenSecret(secret))
    }

    /// All tokens by name, without their secrets.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn list_tokens(&self) -> Result<Vec<TokenInfo>, LedgerError> {
        const DOING: &str = "list tokens";
        let rows = sqlx::query("SELECT name, role, partner, created, expires, revoked FROM tokens ORDER BY name")
            .fetch_all(&self.inner.pool)
            .await
            .doing(DOING)?;
        let at = |row: &SqliteRow, index: usize| row.try_get::<i64, _>(index).doing(DOING).map(Timestamp::from_micros);
        rows.iter()
            .map(|row| {
                Ok(TokenInfo {
                    name: row.try_get(0).doing(DOING)?,
                    role: role_of(row.try_get(1).doing(DOING)?)?,
                    partner: row.try_get(2).doing(DOING)?,
                    created: at(row, 3)?,
                    expires: at(row, 4)?,
                    revoked: row.try_get::<Option<i64>, _>(5).doing(DOING)?.map(Timestamp::from_micros),
                })
            })
            .collect()
    }

    /// Ends a token for good; once more does nothing.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn revoke_token(&self, name: &str, actor: &str) -> Result<(), LedgerError> {
        validate::actor(actor)?;
        let mut write = Write::begin(&self.inner).await?;
        let revoked: Option<Option<i64>> = sqlx::query_scalar("SELECT revoked FROM tokens WHERE name = ?")
            .bind(name)
            .fetch_optional(&mut *write.tx)
            .await
            .doing("look for a token")?;
        match revoked {
            None => {
                // A secret given for a name by mistake must not come back in the error.
                let shown = if validate::token_name(name).is_ok() && !name.starts_with(PREFIX) { name } else { "…" };
                Err(LedgerError::NoSuchToken(shown.to_owned()))
            }
            Some(Some(_)) => write.commit().await,
            Some(None) => {
                let op = Op::Revoke { name: name.to_owned() };
                write.perform(vec![Act::new(actor, "token_revoked", None, &json!({"token": name}), op)]).await?;
                write.commit().await
            }
        }
    }

    /// Whose secret this is; none when it is no token's, or the token is revoked or has expired.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn verify_token(&self, secret: &str) -> Result<Option<Principal>, LedgerError> {
        self.verify(None, secret).await
    }

    /// As [`Ledger::verify_token`], and the token must have that name: for logins with user and password.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn verify_named_token(&self, name: &str, secret: &str) -> Result<Option<Principal>, LedgerError> {
        self.verify(Some(name), secret).await
    }

    async fn verify(&self, name: Option<&str>, secret: &str) -> Result<Option<Principal>, LedgerError> {
        const DOING: &str = "verify a token";
        if secret.strip_prefix(PREFIX).is_none_or(|rest| rest.len() != SECRET_CHARS) {
            return Ok(None);
        }
        let hash = hash_of(secret);
        let row = sqlx::query("SELECT name, hash, role, partner, expires FROM tokens WHERE hash = ? AND revoked IS NULL")
            .bind(&hash[..])
            .fetch_optional(&self.inner.pool)
            .await
            .doing(DOING)?;
        let Some(row) = row else { return Ok(None) };
        let principal = Principal {
            name: row.try_get(0).doing(DOING)?,
            role: role_of(row.try_get(2).doing(DOING)?)?,
            partner: row.try_get(3).doing(DOING)?,
            expires: Timestamp::from_micros(row.try_get(4).doing(DOING)?),
        };
        let right = same(&hash, row.try_get(1).doing(DOING)?)
            && principal.expires > self.inner.clock.now()
            && name.is_none_or(|name| name == principal.name);
        Ok(right.then_some(principal))
    }
}

fn hash_of(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    hash
}

/// Compares in a time that does not depend on where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && std::hint::black_box(left.iter().zip(right).fold(0, |all, (a, b)| all | (a ^ b))) == 0
}

fn role_of(text: &str) -> Result<Role, LedgerError> {
    text.parse().map_err(|_| LedgerError::Damaged("a token's role is unknown"))
}
