-- question: how many activated devices were seen within the last days up to each day?
-- grain: month and dimensions; one count per day of the month
-- inputs: devices, activity, links
-- owner: ameles-queries
-- `seen` holds, for each month, the days on which a device was activated and
-- was active in the {active_in} days that end then; a month bears on those up to
-- {reach} days after its first. Attributes are those of the
-- activating event.

-- statement: value
WITH months(month) AS (VALUES {months}),
seen AS (
  SELECT s.device, m.month, bit_or(seen_days(s.month, s.days, m.month, {active_in})) AS days
  FROM activity s
  JOIN months m ON m.month >= s.month AND m.month <= s.month + INTERVAL '{reach} days'
  WHERE m.month BETWEEN {from} AND {to}
  GROUP BY s.device, m.month
)
SELECT {dims}s.month, sum_bits(s.days & days_since(s.month, a.activated_ts)) AS devices
FROM seen s
JOIN devices a ON a.device = s.device
JOIN (SELECT device, min(month) AS month FROM devices GROUP BY device) f
  ON f.device = a.device AND f.month = a.month
WHERE a.month <= s.month{filter}
GROUP BY {by}s.month

-- statement: people
WITH months(month) AS (VALUES {months}),
seen AS (
  SELECT s.device, m.month, bit_or(seen_days(s.month, s.days, m.month, {active_in})) AS days
  FROM activity s
  JOIN months m ON m.month >= s.month AND m.month <= s.month + INTERVAL '{reach} days'
  WHERE m.month BETWEEN {from} AND {to}
  GROUP BY s.device, m.month
)
, met AS ( -- if user
  SELECT s.device, s."user", m.month, bit_or(seen_days(s.month, s.days, m.month, {active_in})) AS days -- if user
  FROM links s -- if user
  JOIN months m ON m.month >= s.month AND m.month <= s.month + INTERVAL '{reach} days' -- if user
  WHERE m.month BETWEEN {from} AND {to} -- if user
  GROUP BY s.device, s."user", m.month -- if user
) -- if user
SELECT {dims}s.month,
  people(s.days & days_since(s.month, a.activated_ts), a.device, {k}) AS devices
  , people(l.days & days_since(s.month, a.activated_ts), l."user", {k}) AS users -- if user
FROM seen s
JOIN devices a ON a.device = s.device
JOIN (SELECT device, min(month) AS month FROM devices GROUP BY device) f
  ON f.device = a.device AND f.month = a.month
LEFT JOIN met l ON l.device = s.device AND l.month = s.month -- if user
WHERE a.month <= s.month{filter}
GROUP BY {by}s.month
