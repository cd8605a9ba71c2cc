-- A link that comes back asks for what its site was not told; as a rule that is nothing, however many places the site has.

CREATE INDEX writebacks_untold ON writebacks (site, flow, step) WHERE step IN ('retry', 'stuck');
