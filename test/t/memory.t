# F13: allocations in the worker and in sessions fail, one after the other, wherever they are made.
use strict;
use warnings;
use OpsRunner;
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $library = "$ENV{TESTDIR}/fail_memory.so";
system_or_bail('cc', '-O1', '-shared', '-fPIC', '-I', $ENV{OPS_INCLUDE}, '-o', $library, dirname(__FILE__) . '/fail_memory.c');
my $ops = do {
	local $ENV{LD_PRELOAD} = $library;
	OpsRunner->start('memory', settings => { 'ops_runner.poll_interval' => '100ms' });
};
$ops->sql("CREATE FUNCTION fail_memory(nth int, more int) RETURNS int LANGUAGE c AS '$library', 'fail_memory_sql'");

# Numbers of allocations: each of the first ones, then further and further apart.
sub numbers
{
	my ($dense, $growth, $end) = @_;
	my @numbers;
	for (my $n = 1; $n <= $end; $n += $n < $dense ? 1 : 1 + int($n * $growth)) { push @numbers, $n }
	return @numbers;
}

sub failures { return $ops->log_count('fail_memory: an allocation fails') }

# The next run is queued while the one before goes on: what fails may concern either.
for my $more (0, 2)
{
	for my $point (qw(before_resume after_intent_commit before_result_commit))
	{
		subtest "F13 in the worker, from $point on, and $more more" => sub {
			my $failures = failures();
			my @numbers = numbers(20, 0.2, 4000);
			my @runs;
			for my $n (@numbers)
			{
				$ops->stop_at("$point oom=$n more=$more");
				push @runs, $ops->queue($ops->environment("f13-$more-$point-$n"));
				OpsRunner::until('the stop point is passed', sub { $ops->stop_points_passed || $ops->crashes });
			}
			my %ends;
			$ends{ $ops->ended($_) }++ for @runs;
			is_deeply([ sort grep { !/^(success|failed)$/ } keys %ends ], [], 'every run ends: ' . join ', ', map { "$ends{$_} $_" } sort keys %ends);
			cmp_ok(failures() - $failures, '>=', 0.7 * @numbers, failures() - $failures . " allocations failed in @{[ scalar @numbers ]} runs");
			is($ops->crashes, 0, 'the server goes on');
		};
	}
}

# A session may be ended by the server itself; nothing worse may happen, and nothing of the statement may be there.
subtest 'F13 in a session' => sub {
	my $environment = $ops->environment('f13-session');
	my %ends;
	for my $more (0, 2)
	{
		for my $n (numbers(30, 0.1, 2000))
		{
			my ($out, $err);
			$ops->{node}->psql('postgres', "SELECT fail_memory($n, $more);
				BEGIN;
				SELECT run_id FROM ops.queue_run('acme', '$environment', '0123456789abcdef', 'main', '{\"a\": [1, {\"b\": [2]}]}');
				ROLLBACK;", stdout => \$out, stderr => \$err, on_error_stop => 0);
			my $end = $out =~ /run-/ ? 'queued' : $err =~ /(ERROR|FATAL): / ? 'refused' : $err;
			$ends{$end}++;
		}
	}
	note join ', ', map { "$ends{$_} $_" } sort keys %ends;
	is_deeply([ grep { !/^(queued|refused)$/ } keys %ends ], [], 'an answer, or an error that says why');
	cmp_ok($ends{$_} // 0, '>', 5, "some statements were $_") for qw(queued refused);
	is($ops->crashes, 0, 'the server goes on');
};

$ops->succeeds($ops->queue($ops->environment('f13-after')));
subtest 'all in all' => sub { $ops->sound };

done_testing();
