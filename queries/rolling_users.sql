-- question: how many users were active in the {window} days that end on each day (wau, mau28)?
-- grain: month and dimensions; one count per day of the month
-- inputs: links, activity
-- owner: ameles-queries
-- A user counts on a day with each device on which it was seen in the window,
-- under that device's attributes of the month of the device's last active day in
-- the window: those of the link's month until the device is next active (first
-- two parts of `seen`: days of that month, days of the next), of the next month
-- from then on (third part).

-- statement: value
WITH seen AS (
  SELECT {dims}a.month AS month, l."user" AS person, l.device, own_days(a.month, window_days(a.month, l.days, NULL, {window})) AS days, CAST(l.days AS BIGINT UNSIGNED) AS today
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = l.month
  WHERE a.month BETWEEN {from} AND {to}{filter}
  UNION ALL
  SELECT {dims}next_month(a.month), l."user", l.device, spilled_days(a.month, window_days(a.month, l.days, n.days, {window})), CAST(0 AS BIGINT UNSIGNED)
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = l.month
  LEFT JOIN activity n ON n.device = l.device AND n.month = next_month(l.month) AND n.month BETWEEN {from} AND next_month({to})
  WHERE a.month BETWEEN {from} AND {to}{filter}
  UNION ALL
  SELECT {dims}a.month, l."user", l.device,
    spilled_days(l.month, window_days(l.month, l.days, NULL, {window})) - spilled_days(l.month, window_days(l.month, l.days, a.days, {window})),
    CAST(0 AS BIGINT UNSIGNED)
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = next_month(l.month)
  WHERE a.month BETWEEN {from} AND {to}{filter}
)
SELECT {d}month, sum_bits(days) AS users
FROM (SELECT {d}month, person, bit_or(days) AS days FROM seen GROUP BY {d}month, person)
GROUP BY {d}month

-- statement: people
WITH seen AS (
  SELECT {dims}a.month AS month, l."user" AS person, l.device, own_days(a.month, window_days(a.month, l.days, NULL, {window})) AS days, CAST(l.days AS BIGINT UNSIGNED) AS today
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = l.month
  WHERE a.month BETWEEN {from} AND {to}{filter}
  UNION ALL
  SELECT {dims}next_month(a.month), l."user", l.device, spilled_days(a.month, window_days(a.month, l.days, n.days, {window})), CAST(0 AS BIGINT UNSIGNED)
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = l.month
  LEFT JOIN activity n ON n.device = l.device AND n.month = next_month(l.month) AND n.month BETWEEN {from} AND next_month({to})
  WHERE a.month BETWEEN {from} AND {to}{filter}
  UNION ALL
  SELECT {dims}a.month, l."user", l.device,
    spilled_days(l.month, window_days(l.month, l.days, NULL, {window})) - spilled_days(l.month, window_days(l.month, l.days, a.days, {window})),
    CAST(0 AS BIGINT UNSIGNED)
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = next_month(l.month)
  WHERE a.month BETWEEN {from} AND {to}{filter}
)
SELECT {d}month, people(days, person, {k}) AS users, people(days, device, {k}) AS devices
FROM seen
GROUP BY {d}month
