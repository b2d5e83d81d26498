-- question: how many devices were activated on each day?
-- grain: month and dimensions; one count per day of the month
-- inputs: devices, links
-- owner: ameles-queries
-- A device is activated by its first activation event ever: the one of its
-- earliest month. Attributes are those of that event.

-- statement: value
SELECT {dims}a.month, sum_bits(day_bit(a.activated_ts)) AS activations
FROM devices a
JOIN (SELECT device, min(month) AS month FROM devices GROUP BY device) f
  ON f.device = a.device AND f.month = a.month
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month

-- statement: people
-- Users are those seen on the device on the day of its activation.
SELECT {dims}a.month,
  people(day_bit(a.activated_ts), a.device, {k}) AS devices
  , people(day_bit(a.activated_ts) & CAST(l.days AS BIGINT UNSIGNED), l."user", {k}) AS users -- if user
FROM devices a
JOIN (SELECT device, min(month) AS month FROM devices GROUP BY device) f
  ON f.device = a.device AND f.month = a.month
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
