-- question: which part of each month's activated devices was active in each later month?
-- grain: dimensions, cohort, month of activity
-- inputs: devices, activity, links
-- owner: ameles-queries
-- The cohort is the month of the first activation, with that event's attributes.

-- statement: value
SELECT {dims}a.month, s.month AS active, count(*) AS devices
FROM devices a
JOIN (SELECT device, min(month) AS month FROM devices GROUP BY device) f
  ON f.device = a.device AND f.month = a.month
JOIN activity s ON s.device = a.device AND s.month >= a.month
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month, s.month

-- statement: base
SELECT {dims}a.month, a.month AS active, count(*) AS devices
FROM devices a
JOIN (SELECT device, min(month) AS month FROM devices GROUP BY device) f
  ON f.device = a.device AND f.month = a.month
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month

-- statement: people
-- Those active, and those not; users are those seen on the device in the month
-- of its activation.
SELECT {dims}a.month, m.month AS active,
  people(CASE WHEN s.device IS NOT NULL THEN CAST(1 AS BIGINT UNSIGNED) END, a.device, {k}) AS devices
  , people(CASE WHEN s.device IS NULL THEN CAST(1 AS BIGINT UNSIGNED) END, a.device, {k}) AS lost
  , people(CASE WHEN s.device IS NOT NULL THEN CAST(1 AS BIGINT UNSIGNED) END, l."user", {k}) AS users -- if user
  , people(CASE WHEN s.device IS NULL THEN CAST(1 AS BIGINT UNSIGNED) END, l."user", {k}) AS lost_users -- if user
FROM devices a
JOIN (SELECT device, min(month) AS month FROM devices GROUP BY device) f
  ON f.device = a.device AND f.month = a.month
JOIN (VALUES {months}) m(month) ON m.month >= a.month
LEFT JOIN activity s ON s.device = a.device AND s.month = m.month
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month, m.month
