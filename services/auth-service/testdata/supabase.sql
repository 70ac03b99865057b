--
-- PostgreSQL database dump
--

SET statement_timeout = 0;

COPY auth.identities (id, user_id) FROM stdin;
1	2
\.

--
-- Data for Name: users; Type: TABLE DATA; Schema: auth
--

COPY auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, invited_at, confirmation_token, last_sign_in_at, raw_app_meta_data, raw_user_meta_data, is_super_admin, created_at, updated_at, phone, banned_until, is_sso_user, deleted_at, is_anonymous) FROM stdin;
00000000-0000-0000-0000-000000000000	01926f39-0000-4000-9000-000000000001	authenticated	authenticated	supa@example.org	$2b$06$TOjOlA7HsFnIT1lWnT/87e1EqJ.R87A/w/go0dHK60UaFbo9G8Hze	2020-02-03 04:06:06.5+00	\N		\N	{"provider": "email", "providers": ["email"]}	{"full_name": "Supa \\"Base\\"", "plan": "x"}	\N	2020-02-03 04:05:06.789012+00	2020-02-03 04:05:06+00	\N	\N	f	\N	f
00000000-0000-0000-0000-000000000000	01926f39-0000-4000-9000-000000000002	authenticated	authenticated	moved@example.org	$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$dZIdS/sKhXa6czu0QiwZclj3P9fLYxAyRv77k43goTT79GIInq3M6PG2TXauwpLFJA8BndsJffJ/HoPycz/D5g==	\N	\N		\N	{"provider": "email", "providers": ["email"]}	{}	\N	2020-02-03 04:05:06.789012+00	2020-02-03 04:05:06+00	\N	\N	f	\N	f
00000000-0000-0000-0000-000000000000	01926f39-0000-4000-9000-000000000003	authenticated	authenticated	banned@example.org	$argon2id$v=19$m=4096,t=2,p=1$c29tZXNhbHRzYWx0$0I1E7eBwQ+mT/4n3w8cAHX6gnYLqfX1HoW+fwLQO2do	\N	\N		\N	{"provider": "github", "providers": ["email", "github"]}	{}	\N	2020-02-03 04:05:06.789012+00	2020-02-03 04:05:06+00	\N	infinity	f	\N	f
00000000-0000-0000-0000-000000000000	01926f39-0000-4000-9000-000000000004	authenticated	authenticated	deleted@example.org		\N	\N		\N	{"provider": "email", "providers": ["email"]}	{}	\N	2020-02-03 04:05:06.789012+00	2020-02-03 04:05:06+00	\N	\N	f	2021-01-01 00:00:00+00	f
00000000-0000-0000-0000-000000000000	01926f39-0000-4000-9000-000000000005	authenticated	authenticated	\N		\N	\N		\N	{"provider": "email", "providers": ["email"]}	{}	\N	2020-02-03 04:05:06.789012+00	2020-02-03 04:05:06+00	15555550100	\N	f	\N	f
00000000-0000-0000-0000-000000000000	01926f39-0000-4000-9000-000000000006	authenticated	authenticated	back@example.org	$2b$06$TOjOlA7HsFnIT1lWnT/87e1EqJ.R87A/w/go0dHK60UaFbo9G8Hze	\N	\N		\N	{"provider": "email", "providers": ["email"]}	{}	\N	2020-02-03 04:05:06.789012+00	2020-02-03 04:05:06+00	\N	2021-01-01 00:00:00+02	f	\N	f
\.

COPY auth.mfa_factors (id, user_id, status) FROM stdin;
1	01926f39-0000-4000-9000-000000000001	verified
\.
