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
    ('.txt', 'A -- B', 'line 1: -- is an undirected edge; write A -> B if A'),
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
    (
      '.txt',
      '"A b" C',
      "line 1: 'A b' is not a valid variable name; use at .*; rename it in all "
      'files, for example to A_b$',
    ),
    (
      '.txt',
      'A B\n"C\x1b[31m" D',
      r"line 2: 'C\\x1b\[31m' is not a valid variable name",
    ),
    ('.txt', 'A B \x1b[31mC', r'got A B \\x1b\[31mC$'),
    ('.txt', 'A o-> B', 'line 1: o-> is an edge of a partial ancestral graph'),
    ('.txt', 'A o-o B', 'o-o is an edge of a partial ancestral graph'),
    ('.txt', 'A --- B', '-- is an undirected edge'),
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
      'digraph {\nA -> B [dir=both] }',
      'line 2: dir=both is a bidirected edge; write A -> B if A causes B',
    ),
    (
      '.dot',
      'digraph { edge [dir=back] A -> B }',
      'dir=back is an edge in the other direction',
    ),
    (
      '.dot',
      'digraph { A -> B [dir=left] }',
      'dir must be forward or back or both or none, got left',
    ),
    # Nodes that are numbers need complete labels, or none.
    (
      '.dot',
      'digraph { 0 [label=A]; 0 -> 1; 1 -> 2 }',
      'a.file: node 1 has no label, and others have; label each node',
    ),
    (
      '.dot',
      'digraph { 0 [label=A]\n1 [label="A"] 0 -> 1 }',
      'line 2: nodes 0 and 1 have the same label A; label each',
    ),
    (
      '.dot',
      'digraph { 0 [label=A]\n1 [label="B c"] 0 -> 1 }',
      "line 2: 'B c' is not a valid variable name",
    ),
    (
      '.dot',
      'digraph {\n\x1b[2J }',
      r'line 2: expected a variable name, got \\x1b$',
    ),
    ('.dot', 'digraph {\nA [label=<a<b>] }', 'line 2: < is never closed'),
    ('.dot', 'digraph { A [latent=2] A -> B }', 'must be true or false, got 2'),
    (
      '.dot',
      'digraph { A [observed=\x1b] A -> B }',
      'expected a number or a w',
    ),
    (
      '.dot',
      'digraph { A [observed="\x1b"] A -> B }',
      r'observed must be true or false, got \\x1b$',
    ),
    ('.dot', 'digraph { A -> B [latent] }', r'\[latent\] must follow a single'),
    ('.dot', 'digraph { {A B} [latent] }', r'\[latent\] must follow a single'),
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
    (
      '.gml',
      'graph [ directed 1 node [ id 0 label A latent 2 ] ]',
      'latent must be true or false, got 2',
    ),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 label "&#27;A" ] ]',
      "'&#27;A' is not a valid variable name",
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
    (
      '.bif',
      'variable A { } probability ( A B ) { }',
      'B is not declared above',
    ),
    (
      '.bif',
      'variable A { } variable B { } probability ( A, B ) { }',
      'expected a variable name, got ,',
    ),
    ('.bif', 'variable A\n{ { }', 'line 2: this { is never closed'),
    ('.bif', 'variables A { }', 'expected network, variable or probability'),
  )
  def test_is_an_error(self, suffix, text, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence) as caught:
      graph_files.parse(text, suffix, 'a.file')
    self.assertStartsWith(str(caught.exception), 'a.file')
    self.assertTrue(str(caught.exception).isprintable())

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


class EdgesThatAreNotDirectedTest(parameterized.TestCase):
  @parameterized.parameters(
    # Attributes of an edge, and its meaning as Graphviz draws it.
    ('', ''),
    ('arrowhead=normal', ''),
    ('arrowhead=vee, arrowtail=none', ''),
    ('arrowhead=tee', ''),
    ('dir=forward, arrowtail=odot', ''),
    ('dir=both, arrowhead=normal, arrowtail=none', ''),
    ('dir="both"] [arrowtail="none"', ''),
    ('style=dashed', ''),
    ('arrowhead=none', 'arrowhead=none is an undirected edge'),
    ('arrowhead="NONE"', 'arrowhead=none is an undirected edge'),
    ('dir=none', 'dir=none is an undirected edge'),
    (
      'dir=both, arrowhead=none, arrowtail=none',
      'dir=both arrowhead=none arrowtail=none is an undirected edge',
    ),
    ('dir=both', 'dir=both is a bidirected edge'),
    ('arrowtail=normal', 'arrowtail=normal is a bidirected edge'),
    ('dir=back', 'dir=back is an edge in the other direction'),
    (
      'dir=both, arrowhead=none',
      'dir=both arrowhead=none is an edge in the other direction',
    ),
    ('arrowhead=odot', 'arrowhead=odot is an edge of a partial ancestral'),
    ('arrowtail=odot', 'arrowtail=odot is an edge of a partial ancestral'),
    (
      'dir=both, arrowtail=odot',
      'dir=both arrowtail=odot is an edge of a partial ancestral',
    ),
    ('style=invis', 'style=invis hides this edge; remove the edge if'),
    ('style="dashed, invis"', 'style=dashed, invis hides this edge'),
    ('color=transparent', 'color=transparent hides this edge'),
    ('color="#FF000000"', 'color=#ff000000 hides this edge'),
    ('penwidth=0.0', 'penwidth=0.0 hides this edge'),
  )
  def test_attributes_decide(self, attributes, reason):
    for edge in (
      f'X -> Z [{attributes}]',
      f'edge [{attributes}] X -> Z',
      f'{{ edge [{attributes}] {{ X -> Z }} }}',
    ):
      text = f'digraph {{\n{edge} Z -> Y X -> Y\n}}'
      if reason:
        with self.assertRaisesRegex(
          errors.UsageError, f'^a.file, line 2: {reason}'
        ):
          graph_files.parse(text, '.dot', 'a.file')
      else:
        graph = graph_files.parse(text, '.dot', 'a.file')
        self.assertEqual(_edges(graph), {('X', 'Z'), ('Z', 'Y'), ('X', 'Y')})

  def test_attributes_that_do_not_hide(self):
    for attribute in ('style=dashed', 'color="#ff0000"', 'penwidth=0.5'):
      graph = graph_files.parse(
        f'digraph {{ A -> B [{attribute}] }}', '.dot', 'a.file'
      )
      self.assertEqual(_edges(graph), {('A', 'B')})

  def test_columns_of_a_table_in_the_other_order(self):
    with self.assertRaisesRegex(errors.UsageError, 'put that of the causes fi'):
      graph_files.parse('target,source\nA,B', '.csv', 'a.file')

  def test_defaults_end_with_their_group(self):
    graph = graph_files.parse(
      'digraph { A -> B { edge [style=invis] node [latent=true] U A } U -> B }',
      '.dot',
      'a.file',
    )
    self.assertEqual(_edges(graph), {('A', 'B'), ('U', 'B')})
    # A is older than the defaults.
    self.assertEqual(_latent(graph), ['U'])

  @parameterized.parameters(
    ('arrowhead "none"', 'arrowhead=none is an undirected edge'),
    ('graphics [ arrow "none" ]', 'dir=none is an undirected edge'),
    ('graphics [ arrow "both" ]', 'dir=both is a bidirected edge'),
    ('graphics [ arrow "first" ]', 'dir=back is an edge in the other'),
    (
      'graphics [ sourceArrow "white_circle" targetArrow "standard" ]',
      'is an edge of a partial ancestral graph',
    ),
    ('graphics [ targetArrow "none" ]', 'arrowhead=none is an undirected'),
    ('graphics [ arrow "last" targetArrow "standard" width 1 ]', ''),
  )
  def test_gml(self, fields, reason):
    text = (
      'graph [ directed 1 node [ id 0 label "A" ] node [ id 1 label "B" ]\n'
      f'edge [ source 0 target 1 {fields} ] ]'
    )
    if reason:
      with self.assertRaisesRegex(
        errors.UsageError, f'^a.file, line 2: .*{reason}'
      ):
        graph_files.parse(text, '.gml', 'a.file')
    else:
      graph = graph_files.parse(text, '.gml', 'a.file')
      self.assertEqual(_edges(graph), {('A', 'B')})


class FilesOfProgramsTest(parameterized.TestCase):
  @parameterized.parameters(
    # Numbered nodes are named by their labels.
    (
      '.dot',
      'digraph { fontsize=18; 0 [label=A]; 1 [label="B"]; 2 [label="gr&#246;"]'
      '0 -> 1 [dir=both, arrowtail=none, arrowhead=normal]; 0 -> 2 }',
      {('A', 'B'), ('A', 'grö')},
    ),
    ('.dot', 'digraph { 0 -> 1 }', {('0', '1')}),
    ('.dot', 'digraph { a [label=A] a -> B }', {('a', 'B')}),
    # Graphviz wraps long strings.
    (
      '.dot',
      'digraph g {\n\tgraph [bb="0,0"];\n\tnode [label="\\N"];\n'
      '\tA -> B [pos="e,27,108.1 27,143.7 \\\n27,119.54"];\n"A" -> "C\\\nd" }',
      {('A', 'B'), ('A', 'Cd')},
    ),
    (
      '.gv',
      'digraph { A [label="say \\"dose\\""] A -> B [label=<<b>a</b> "-&gt;>] }',
      {('A', 'B')},
    ),
    ('.dot', 'strict digraph { A -> B A -> {B} }', {('A', 'B')}),
    ('.dagitty', 'dag { A -> B; A -> {B C} }', {('A', 'B'), ('A', 'C')}),
    (
      '.gml',
      'graph [ directed 1 name "x\ny" a 1.E+16 b +INF c -1.5 d 2.5E-05 e .5\n'
      'node [ id -1 label "gr&#246;&#x00df;e" ] node [ id 2 label "B" ]\n'
      'edge [ source -1 target 2 weight 1.0E+20 label "a &quot;b&quot;" ] ]',
      {('größe', 'B')},
    ),
    (
      '.bif',
      'variable A {} variable B {} variable C {} probability ( A ) {}'
      'probability ( B | A ) {} probability ( C | A B ) {}',
      {('A', 'B'), ('A', 'C'), ('B', 'C')},
    ),
    (
      '.bif',
      'variable A {} variable B {} variable C {} probability ( "A" ) {}'
      'probability ( "B" "A" ) {} probability ( "C"  "A" "B" ) {}',
      {('A', 'B'), ('A', 'C'), ('B', 'C')},
    ),
    ('.txt', 'A --> B\nA-->C', {('A', 'B'), ('A', 'C')}),
  )
  def test_edges(self, suffix, text, edges):
    graph = graph_files.parse(text, suffix, 'a.file')
    self.assertEqual(_edges(graph), edges)
    self.assertEqual(_latent(graph), [])

  @parameterized.parameters(
    'latent',
    'latent=1',
    'latent="True"',
    'unobserved=yes',
    'observed=no',
    'observed="No"',
    'observed=false',
  )
  def test_latent_node(self, attribute):
    for text in (
      f'digraph {{ U [{attribute}] A -> B U -> B }}',
      f'digraph {{ node [{attribute}] U node [latent=0, observed=1, '
      'unobserved=0] A -> B U -> B }',
    ):
      graph = graph_files.parse(text, '.dot', 'a.file')
      self.assertEqual(_latent(graph), ['U'])

  @parameterized.parameters(
    'latent 1', 'latent "true"', 'observed "no"', 'observed 0'
  )
  def test_latent_node_of_gml(self, field):
    graph = graph_files.parse(
      f'graph [ directed 1 node [ id 0 label "U" {field} ]'
      'node [ id 1 label A observed "yes" ] node [ id 2 label B latent 0 ] ]',
      '.gml',
      'a.file',
    )
    self.assertEqual(_latent(graph), ['U'])


class NormalizedNameTest(parameterized.TestCase):
  def test_combining_marks_are_composed(self):
    name = graph_files.normalized_name(' gro\u0308\u00dfe ')
    self.assertEqual(name, ' gr\u00f6\u00dfe ')

  @parameterized.parameters(
    ('.txt', 'o\u0308 -> B'),
    ('.dot', 'digraph { o\u0308 -> B; "\u00f6" [shape=box] }'),
    ('.dagitty', 'dag { "o\u0308" -> B; \u00f6 -> B }'),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 label "o&#776;" ] node [ id 1 label "B" ]'
      'edge [ source 0 target 1 ] ]',
    ),
    (
      '.bif',
      'variable o\u0308 {} variable B {} probability ( \u00f6 ) {}'
      'probability ( B | o\u0308 ) {}',
    ),
  )
  def test_readers_normalize(self, suffix, text):
    graph = graph_files.parse(text, suffix, 'a.file')
    self.assertEqual(graph.variables, ('\u00f6', 'B'))

  def test_long_texts_are_not_normalized(self):
    # The marks would change places; the time grows with the square.
    text = 'a' + '\u0315\u0300' * 1000
    self.assertEqual(graph_files.normalized_name(text), text)


class LargeFilesTest(parameterized.TestCase):
  @parameterized.parameters(
    # A regular expression or a list that is copied would take minutes.
    ('.txt', 'A', ' ', 'A B C', 'expected one edge'),
    ('.txt', 'A B ', 'a.', '!', 'expected one edge'),
    ('.dot', 'strict digraph { A', ' -> B -> A', '}', 'the graph has a cycle'),
    ('.dot', 'digraph { A -> B [a="', '\\"', '"] }', ''),
    ('.dot', 'digraph { A -> B a="', '\\"', '', '" is never closed'),
    ('.dot', 'digraph { A -> B a=', '<', '', '< is never closed'),
    ('.dot', 'digraph { A -> B a=', '1', 'e }', ''),
    ('.dot', 'digraph { A -> ', '1', 'e }', 'not a valid variable name'),
    ('.dot', 'digraph { A -> ', '\u0315\u0300', '}', 'not a valid variable'),
    ('.gml', 'graph [ a "', '&#1', '" ]', "one field 'directed', got 0"),
  )
  def test_takes_linear_time(self, suffix, start, middle, end, reason):
    text = f'{start}{middle * (200_000 // len(middle))}{end}'
    if not reason:
      graph_files.parse(text, suffix, 'a.file')
      return
    with self.assertRaisesRegex(errors.UsageError, reason):
      graph_files.parse(text, suffix, 'a.file')

  def test_large_groups_are_counted(self):
    group = ' '.join(f'a{j}' for j in range(30))
    text = f'{{{group}}} -> {{{group.replace("a", "b")}}} ' * 2
    with (
      absltest.mock.patch.object(graph_files, '_MAX_EDGES', 1700),
      self.assertRaisesRegex(errors.UsageError, 'more than 1,700 edges'),
    ):
      graph_files.parse(f'dag {{ {text} }}', '.dagitty', 'a.file')
    with absltest.mock.patch.object(graph_files, '_MAX_EDGES', 1800):
      graph = graph_files.parse(f'dag {{ {text} }}', '.dagitty', 'a.file')
    self.assertLen(_edges(graph), 900)


_WORDS = (
  'A B C A.1 "A" "x y" -> <- -- <-> , ; { } [ ] ( ) | = # // /* */ " 1 - '
  'digraph dag graph subgraph node edge strict latent latent=true directed '
  'id label source target network variable probability dir=both --> o-> < > '
  'arrowhead=none label=<b> "\\" \\ observed=no [ ] edge [arrowtail=odot] 0 1 '
  '[label=A] 1e5 +INF "&#246;" "o\u0308" o\u0308 \x1b'
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
        self.assertTrue(str(error).isprintable())
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
