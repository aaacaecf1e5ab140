CREATE CONSTRAINT person_id FOR (n:Person) REQUIRE n.id IS UNIQUE;
CREATE CONSTRAINT `odd ``name` FOR ()-[r:`KNOWS ``x`]-() REQUIRE r.id IS UNIQUE;
CREATE INDEX FOR (n:`Two words`) ON (n.`odd ``key`, n.b);
CREATE FULLTEXT INDEX words FOR (n:Person|Text) ON EACH [n.name] OPTIONS {indexConfig: {`fulltext.analyzer`: 'english'}};
CREATE VECTOR INDEX vec FOR (n:Text) ON (n.v) OPTIONS {indexConfig: {`vector.dimensions`: 3, `vector.similarity_function`: 'cosine'}};
CREATE POINT INDEX pt FOR (n:Place) ON (n.at);
CREATE TEXT INDEX tx FOR (n:Person) ON (n.name);
CREATE (n:All:Types {i: 9223372036854775807, j: -9223372036854775808, f: 1.5, g: -0.0, nan: 0.0/0.0, inf: 1.0/0.0, f3: 3.0, s: 'ünï "q" \n 🎉', t: true, e: '', li: [1,2], lf: [1.0, 0.0/0.0], ls: ['a','b'], lb: [true], empty: [],
 d: date('-2000-01-01'), d2: date('+12000-01-01'), lt: localtime('12:00:00.000000001'), z: time('12:00Z'), z2: time('12:00:00.5-03:00'), z3: time({hour:1,timezone:'+02:30:15'}), ldt: localdatetime('2020-01-01T00:00:00.000000001'),
 dt: datetime('2020-01-01T00:00:00Z'), dt2: datetime('2020-01-01T00:00:00[UTC]'), dt3: datetime('2020-10-25T02:30:00.123456789+01:00[Europe/Paris]'), dt4: datetime('2020-10-25T02:30:00+02:00[Europe/Paris]'), dt5: datetime('1800-10-25T02:30:00[Europe/Paris]'), dt6: datetime('9999-12-31T23:59:59.999999999-18:00'), dt7: datetime('2020-01-01T00:00:00[SystemV/PST8]'),
 du: duration('P1Y2M3DT4H5M6.789S'), du2: duration({days:-1,seconds:1,nanoseconds:-1}), p: point({x:1,y:2}), p3: point({x:1,y:2,z:3.5}), w: point({longitude:1,latitude:2}), w3: point({longitude:1,latitude:2,height:3}),
 ldates: [date('2020-01-01'), date('2021-01-01')], ldts: [datetime('2020-01-01T00:00:00Z'), datetime('2020-01-01T00:00:00[UTC]')], lts: [time('12:00Z')], llts: [localtime('12:00')], lldts: [localdatetime('2020-01-01T00:00')], ldus: [duration('P1D')], lps: [point({x:1,y:2})]});
CREATE ();
CREATE (:`a ``b` {`k ``y`: 1, `date`: date('2020-01-01'), `p ''q`: duration('P1M')});
CREATE (a:Person {id: 1, name: 'A'})-[:SELF {at: datetime('2020-01-01T00:00:00Z')}]->(a);
CREATE (a:Person:Text {id: 2, name: 'B', v: [1.0, 2.0, 3.0]});
MATCH (a:Person {id: 1}), (b:Person {id: 2}) CREATE (a)-[:`KNOWS ``x` {id: 1}]->(b), (a)-[:P]->(b), (a)-[:P]->(b), (b)-[:P {w: 1.0}]->(a);
