"""Tests of reading graphs from files."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms.files import graph_files

# The same graph in every format, written by hand: U is latent.
_VARIABLES = ('A', 'U', 'C.2', 'B-b')
_EDGES = {('A', 'C.2'), ('U', 'C.2'), ('U', 'B-b'), ('C.2', 'B-b')}
_SAME = {
  '.txt': 'A\nU [latent]  # A comment.\n\nA C.2\n"U"\t"C.2"\r\n'
  'U -> B-b\nC.2,B-b\n',
  '.edges': 'A\nU [unobserved]\nA->C.2\nU , C.2\nU B-b\nC.2 -> B-b',
  '.csv': 'from,to\nA,C.2\nU [latent]\nU,C.2\nU,B-b\nC.2,B-b\n',
  '.dot': """// By hand.
    strict digraph "a name" {
      rankdir = LR; node [shape=circle, width=-.5] edge [color="#ff0000"];
      A [label="a; -> b]"];
      U [latent=true, style="dashed"]
      {A; U} -> "C.2" -> "B-b" [weight=1.5];
      subgraph cluster_0 { label = "both"; rank=same U -> "B-b" }
    }""",
  '.gv': 'digraph{A U[unobserved] "C.2"/* and\n*/A->"C.2"<-U->{"B-b"}'
  '"C.2"->"B-b"}',
  '.dagitty': 'dag {\nbb="-3,-0.5,2,1.2"\nA [exposure,pos="-1,0.5"]\n'
  'U [latent,pos="0,1"]\n{A U} -> C.2\nU -> B-b [pos="1,1"]\n'
  'B-b <- C.2\n}\n',
  '.gml': """Creator "a program"
    graph [ comment "x" directed 1 weight -1.5
      node [ id 0 label "A" graphics [ x 1 y .5 ] ]
      node [ id 7 label "U" latent 1 ]
      node [ id 2 label "C.2" ] node [ id 3 label "B-b" latent 0 ]
      edge [ source 0 target 2 ] edge [ source 7 target 2 ]
      edge [ source 7 target 3 label "e" ] edge [ source 2 target 3 ]
    ]""",
}
_BIF = """network unknown { property "made by hand" ; }
  variable A { type discrete [ 2 ] { yes, no }; }
  variable B { type discrete [ 2 ] { 0, 1 }; property x = (1, -2.5e-3) ; }
  variable C { type discrete [ 2 ] { a, b }; }
  probability ( C | A, B ) { (yes, 0) 0.1, 0.9; default 0.5, 0.5; }
  probability ( A ) { table 0.2, 0.8; }
  probability ( B | A ) { table 1e-1, 0.9, 0.4, 0.6; }
"""


def _folder(test):
  return pathlib.Path(test.enterContext(tempfile.TemporaryDirectory()))


def _edges(graph):
  return {
    (graph.variables[i], graph.variables[j])
    for j, i in np.argwhere(graph.parents)
  }


def _latent(graph):
  names = zip(graph.variables, graph.latent, strict=True)
  return [name for name, latent in names if latent]


class FormatsTest(parameterized.TestCase):
  def _read(self, text, suffix, newline=None):
    path = _folder(self) / f'graph{suffix}'
    path.write_text(text, encoding='utf-8', newline=newline)
    return graph_files.read(path)

  @parameterized.parameters(*_SAME)
  def test_the_same_graph_in_every_format(self, suffix):
    graph = self._read(_SAME[suffix], suffix)
    self.assertEqual(_edges(graph), _EDGES)
    self.assertEqual(_latent(graph), ['U'])
    self.assertCountEqual(graph.variables, _VARIABLES)
    self.assertEqual(graph.parents.shape, (4, 4))
    self.assertEqual(graph.parents.dtype, bool)

  def test_bif(self):
    graph = self._read(_BIF, '.bif')
    self.assertEqual(graph.variables, ('A', 'B', 'C'))
    self.assertEqual(_edges(graph), {('A', 'C'), ('B', 'C'), ('A', 'B')})
    self.assertEqual(_latent(graph), [])

  def test_variables_keep_the_order_of_the_file(self):
    graph = self._read('B C\nD\nA B', '.txt')
    self.assertEqual(graph.variables, ('B', 'C', 'D', 'A'))

  def test_suffixes_in_capitals_and_a_byte_order_mark(self):
    graph = self._read('\ufeffÄ ñ', '.TXT')
    self.assertEqual(graph.variables, ('Ä', 'ñ'))

  def test_lines_of_windows_and_a_header_in_quotes(self):
    graph = self._read('"Source","Target"\r\n"A","B"\r\n', '.csv', newline='')
    self.assertEqual(_edges(graph), {('A', 'B')})

  def test_only_a_csv_has_a_header(self):
    self.assertEqual(_edges(self._read('from,to', '.txt')), {('from', 'to')})

  def test_keywords_of_dot_may_be_variables_of_dagitty(self):
    graph = self._read('dag { node [pos="0,0"] edge -> node }', '.dagitty')
    self.assertEqual(_edges(graph), {('edge', 'node')})

  def test_groups_on_both_sides(self):
    graph = self._read('digraph { {A B} -> {C D} -> E }', '.dot')
    self.assertEqual(
      _edges(graph),
      {(i, j) for i in 'AB' for j in 'CD'} | {('C', 'E'), ('D', 'E')},
    )

  def test_latent_may_be_false(self):
    graph = self._read('digraph { A [latent=false] A -> B }', '.dot')
    self.assertEqual(_latent(graph), [])


class ErrorsTest(parameterized.TestCase):
  """Messages name the file and the line, and say what would be right."""

  @parameterized.parameters(
    # Edge lists.
    ('.txt', 'A B\nA B C', r'line 2: expected one edge \(A -> B, .*got A B C'),
    ('.txt', 'A B 0.5', 'line 1: expected one edge'),
    ('.txt', 'A B\nC -', 'line 2: expected one edge'),
    ('.txt', 'A B\n"C" "D', 'line 2: expected one edge'),
    ('.txt', 'A B\nC [pos]', 'line 2: expected one edge'),
    ('.txt', 'A -- B', 'line 1: -- is an undirected edge; write ->'),
    ('.txt', 'A <-> B', 'line 1: <-> is a bidirected edge.*latent'),
    ('.txt', 'A B\n\nB B', "line 3: 'B' is a cause of itself; remove"),
    (
      '.txt',
      'A B\nB C\nA -> B',
      'line 3: duplicate edge A -> B, first on line 1',
    ),
    ('.txt', 'A B\nB A', 'the graph has a cycle, (A -> B -> A|B -> A -> B)'),
    (
      '.txt',
      'X A\nC A\nA B\nB C\nC D',
      'cycle, (A -> B -> C -> A|B -> C -> A -> B|C -> A -> B -> C); remove',
    ),
    ('.txt', '"A b" C', "line 1: 'A b' is not a valid variable name; use at"),
    ('.txt', '"" C', "line 1: '' is not a valid variable name"),
    ('.txt', f'{"x" * 65} C', 'is not a valid variable name; use at most 64'),
    ('.txt', '', 'at least two variables that are not latent; this one has 0'),
    ('.txt', 'U [latent]\nU A', 'that are not latent; this one has 1'),
    (
      '.txt',
      '\n'.join(f'x{j} x{j + 1}' for j in range(256)),
      "line 256: variable 'x256' exceeds the limit of 256 variables",
    ),
    # DOT.
    (
      '.dot',
      'graph { A -- B }',
      'line 1: expected digraph, got graph',
    ),
    ('.dot', 'digraph { A -- B }', 'line 1: -- is an undirected edge'),
    ('.dot', 'digraph {\nA -> B\n', 'line 3: .*got the end of the file'),
    ('.dot', 'digraph { A -> }', 'expected a variable name, got }'),
    ('.dot', 'digraph { A -> B } C', 'expected the end of the file, got C'),
    ('.dot', 'digraph { A -> B:n }', 'expected a variable name, got :'),
    ('.dot', 'digraph { A ->\n"B }', 'line 2: " is never closed'),
    ('.dot', 'digraph {\n/* A -> B }', r'line 2: /\* is never closed'),
    (
      '.dot',
      'digraph { A -> B [dir=both] }',
      'dir=both changes the direction of an edge; write',
    ),
    (
      '.dot',
      'digraph { edge [dir=back] A -> B }',
      'dir=back changes the direction',
    ),
    ('.dot', 'digraph { A [latent=1] A -> B }', 'must be true or false, got 1'),
    ('.dot', 'digraph { A -> B [latent] }', r'\[latent\] must follow a single'),
    ('.dot', 'digraph { {A B} [latent] }', r'\[latent\] must follow a single'),
    ('.dot', 'digraph { A [label=<b>] }', 'expected a number or a word'),
    (
      '.dot',
      'digraph { A [label="x" }',
      'expected an attribute, got }',
    ),
    ('.dot', 'digraph ' + '{' * 40, 'braces are nested more than 32 deep'),
    ('.dot', 'digraph { = B }', 'expected a variable name, got ='),
    ('.dot', 'digraph { -> = B }', 'expected an attribute, got ->'),
    ('.dot', 'digraph { subgraph { A } -> A }', "'A' is a cause of itself"),
    # DAGitty.
    ('.dagitty', 'pdag { A -> B }', 'line 1: expected dag, got pdag'),
    ('.dagitty', 'dag { A <-> B }', '<-> is a bidirected edge'),
    ('.dagitty', 'dag { A -> B -> A }', 'cycle, (A -> B -> A|B -> A -> B)'),
    ('.dagitty', 'dag { A @0.1 B }', 'expected a variable name, got @'),
    # GML.
    (
      '.gml',
      'graph [ node [ id 0 label "A" ] ]',
      "one field 'directed', got 0",
    ),
    ('.gml', 'graph [ directed 0 ]', 'line 1: the graph must have directed 1'),
    ('.gml', 'graph 3', 'line 1: graph must be a list in'),
    ('.gml', 'node [ ]', "line 1: expected exactly one field 'graph', got 0"),
    ('.gml', 'graph [ directed 1 node 3 ]', 'node must be a list in'),
    (
      '.gml',
      'graph [ directed [ ] ]',
      'directed must be one value, not a list',
    ),
    (
      '.gml',
      'graph [ directed 1\nnode [ id 0 ] ]',
      "line 2: .*one field 'label', got 0",
    ),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 id 1 label A ] ]',
      "one field 'id', got 2",
    ),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 label A ]\nnode [ id 0 label B ] ]',
      'line 2: the id 0 or the label B is already in use',
    ),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 label A ]\nedge [ source 0 target 1 ] ]',
      'line 2: there is no node with the id 1',
    ),
    ('.gml', 'graph [ directed 1', 'expected a key, got the end'),
    ('.gml', 'graph graph', 'line 1: graph must be a list in'),
    ('.gml', 'graph ]', 'expected a number or a word, got ]'),
    ('.gml', 'a [ ' * 40, 'brackets are nested more than 32 deep'),
    # BIF.
    ('.bif', 'variable A { }\nvariable A { }', 'line 2: duplicate variable A'),
    ('.bif', 'probability ( A ) { }', 'variable A is not declared above'),
    (
      '.bif',
      'variable A { }\nprobability ( A | B ) { }',
      'line 2: variable B is not declared above',
    ),
    (
      '.bif',
      'variable A { } probability (A) { }\nprobability (A) { }',
      'line 2: duplicate probability of A',
    ),
    ('.bif', 'variable A { } variable B { }', 'A has no probability'),
    ('.bif', 'variable A { } probability ( A B ) { }', r'expected \), got B'),
    ('.bif', 'variable A\n{ { }', 'line 2: this { is never closed'),
    ('.bif', 'variables A { }', 'expected network, variable or probability'),
  )
  def test_is_an_error(self, suffix, text, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence) as caught:
      graph_files.parse(text, suffix, 'a.file')
    self.assertStartsWith(str(caught.exception), 'a.file')
    self.assertNotIn('\n', str(caught.exception))

  def test_file_that_cannot_be_read(self):
    folder = _folder(self)
    with self.assertRaisesRegex(
      errors.UsageError, r'none\.txt cannot be read: No such file'
    ):
      graph_files.read(folder / 'none.txt')
    with self.assertRaisesRegex(
      errors.UsageError,
      r'a\.png is not in a supported graph format.*\.txt, .*\.bif',
    ):
      graph_files.read(folder / 'a.png')
    (folder / 'a.txt').mkdir()
    with self.assertRaisesRegex(errors.UsageError, 'it is a directory'):
      graph_files.read(folder / 'a.txt')

  def test_file_that_is_not_utf_8(self):
    path = _folder(self) / 'a.txt'
    path.write_bytes(b'A B\nB \xff\n')
    with self.assertRaisesRegex(errors.UsageError, 'line 2: not valid UTF-8'):
      graph_files.read(path)

  def test_file_that_is_too_large(self):
    path = _folder(self) / 'a.txt'
    with path.open('wb') as file:
      file.truncate(10**7 + 1)
    with self.assertRaisesRegex(errors.UsageError, 'at most 10,000,000 bytes'):
      graph_files.read(path)

  def test_many_groups_fail_before_they_fill_the_memory(self):
    group = '{' + ' '.join(f'x{j}' for j in range(100)) + '}'
    text = f'digraph {{ {f"{group} -> {{A}} " * 100} }}'
    with self.assertRaisesRegex(
      errors.UsageError, 'duplicate edge x0 -> A, first on line 1'
    ):
      graph_files.parse(text, '.dot', 'a.dot')
    graph = graph_files.parse(
      f'digraph {{ {{{"A " * 10**5}}} -> {{{"B " * 10**5}}} }}', '.dot', 'a'
    )
    self.assertEqual(_edges(graph), {('A', 'B')})


class NormalizedNameTest(absltest.TestCase):
  def test_combining_marks_are_composed(self):
    name = graph_files.normalized_name(' gro\u0308\u00dfe ')
    self.assertEqual(name, ' gr\u00f6\u00dfe ')


_WORDS = (
  'A B C A.1 "A" "x y" -> <- -- <-> , ; { } [ ] ( ) | = # // /* */ " 1 - '
  'digraph dag graph subgraph node edge strict latent latent=true directed '
  'id label source target network variable probability dir=both'
)
_PIECES = strategies.lists(
  strategies.sampled_from(['\n', *_WORDS.split()]), max_size=40
).map(' '.join)


class FuzzTest(parameterized.TestCase):
  @parameterized.parameters(*graph_files._READERS)
  def test_any_text_gives_a_graph_or_an_error(self, suffix):
    start = {
      '.dot': 'digraph {',
      '.gv': 'digraph {',
      '.dagitty': 'dag {',
      '.gml': 'graph [ directed 1 node [ id 1 label A ]',
      '.bif': 'variable A { } probability ( A ) { }',
    }.get(suffix, '')

    @hypothesis.settings(
      max_examples=300, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(
      strategies.sampled_from(['', start]),
      strategies.text(max_size=60) | _PIECES,
      strategies.sampled_from(['', '}', ']']),
    )
    def check(start, text, end):
      try:
        graph = graph_files.parse(f'{start} {text} {end}', suffix, 'a.file')
      except errors.UsageError as error:
        self.assertStartsWith(str(error), 'a.file')
        return
      order = graph_files.causal_order(graph.parents)
      self.assertLen(order, len(graph.variables))
      self.assertEqual(graph.latent.shape, (len(graph.variables),))

    check()

  def test_any_bytes(self):
    path = _folder(self) / 'a.txt'

    @hypothesis.settings(
      max_examples=300, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(strategies.binary(max_size=40))
    def check(content):
      path.write_bytes(content)
      try:
        graph_files.read(path)
      except errors.UsageError:
        return

    check()

  @parameterized.parameters('.txt', '.dot', '.dagitty', '.gml')
  def test_every_graph_round_trips(self, suffix):
    """Tests that any graph is read as it was written."""

    @hypothesis.settings(
      max_examples=50, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(
      strategies.lists(
        strategies.from_regex(r'[A-Za-z]\w{0,5}(\.\w)?', fullmatch=True),
        min_size=2,
        max_size=8,
        unique=True,
      ),
      strategies.randoms(use_true_random=False),
    )
    def check(names, random):
      order = random.sample(names, len(names))
      pairs = [(a, b) for n, a in enumerate(order) for b in order[n + 1 :]]
      edges = [pair for pair in pairs if random.random() < 0.5]
      if suffix == '.txt':
        text = '\n'.join([*names, *(f'{a} {b}' for a, b in edges)])
      elif suffix == '.gml':
        number = {name: n for n, name in enumerate(names)}
        nodes = [f'node [ id {number[a]} label "{a}" ]' for a in names]
        arcs = [
          f'edge [ source {number[a]} target {number[b]} ]' for a, b in edges
        ]
        text = f'graph [ directed 1 {" ".join(nodes + arcs)} ]'
      else:
        quoted = [f'"{a}"' for a in names]
        arcs = [f'"{a}" -> "{b}"' for a, b in edges]
        head = 'dag' if suffix == '.dagitty' else 'digraph'
        text = f'{head} {{ {"; ".join(quoted + arcs)} }}'
      graph = graph_files.parse(text, suffix, 'a.file')
      self.assertEqual(graph.variables, tuple(names))
      self.assertEqual(_edges(graph), set(edges))

    check()


if __name__ == '__main__':
  absltest.main()
